# As much of NixOS as our modules speak of, with the types that its options have there.
{lib, ...}: let
  inherit (lib) types;
  inherit (import ./shared.nix {inherit lib;}) assertions files flag of packages section set texts;
  units = sections:
    of (types.attrsOf (types.submodule {
      options =
        {
          description = of types.str "";
          after = texts;
          wants = texts;
          wantedBy = texts;
          unitConfig = section;
        }
        // sections;
    })) {};
  services = units {
    path = packages;
    restartTriggers = packages;
    serviceConfig = section;
  };
in {
  options = {
    inherit assertions;
    boot.kernelParams = texts;
    environment = {
      systemPackages = packages;
      etc = files;
      variables = set;
    };
    nixpkgs.hostPlatform = of types.str "x86_64-linux";
    networking = {
      hostName = of types.str "attic";
      firewall.allowedTCPPorts = of (types.listOf types.port) [];
    };
    services = {
      timesyncd.enable = flag;
      nats = {
        enable = flag;
        jetstream = flag;
        serverName = of types.str "nats";
        host = of types.str "127.0.0.1";
        port = of types.port 4222;
        settings = set;
      };
    };
    systemd = {
      inherit services;
      slices = units {sliceConfig = section;};
      user.services = services;
    };
    users = {
      users = set;
      groups = set;
    };
  };
}
