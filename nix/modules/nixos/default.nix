# lenderd, the broker and a NATS server as services of a NixOS machine; each only where it is
# switched on.
{
  imports = [./lenderd.nix ./broker.nix ./nats.nix];
}
