# The secret by sops-nix: its place, never its text.
{config, ...}: {
  sops.secrets.lenderd.sopsFile = ./secrets/machine.yaml;
  services.lender = {
    enable = true;
    credentialsFile = config.sops.secrets.lenderd.path;
  };
}
