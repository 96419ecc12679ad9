# A Raspberry Pi on a shelf.
{
  networking.hostName = "pi-shelf";
  nixpkgs.hostPlatform = "aarch64-linux";
  services.lender.credentialsFile = "/run/agenix/lenderd";
}
