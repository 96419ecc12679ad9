# A server. Its hardware's own file comes beside this one.
{
  networking.hostName = "attic";
  nixpkgs.hostPlatform = "x86_64-linux";
  services.lender = {
    enable = true;
    credentialsFile = "/run/agenix/lenderd";
    settings.slots = 4;
  };
}
