# As much of nix-darwin as our module speaks of.
{lib, ...}: let
  inherit (lib) types;
  inherit (import ./shared.nix {inherit lib;}) assertions files of packages set texts;
in {
  options = {
    inherit assertions;
    environment = {
      systemPackages = packages;
      etc = files;
    };
    users = {
      knownUsers = texts;
      knownGroups = texts;
      users = set;
      groups = set;
    };
    launchd.daemons = of (types.attrsOf (types.submodule ({config, ...}: {
      options = {
        command = of types.str "";
        serviceConfig = set;
      };
      config.serviceConfig = {
        Label = lib.mkDefault "org.nixos.job";
        ProgramArguments = lib.mkIf (config.command != "") ["/bin/sh" "-c" "wait && exec ${config.command}"];
      };
    }))) {};
  };
}
