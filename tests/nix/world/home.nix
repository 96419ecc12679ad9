# As much of Home Manager as our module speaks of.
{lib, ...}: let
  inherit (lib) types;
  inherit (import ./shared.nix {inherit lib;}) assertions files flag of packages section set;
  units = of (types.attrsOf (types.submodule {
    options = {
      Unit = section;
      Service = section;
      Slice = section;
      Install = of (types.attrsOf (types.listOf types.str)) {};
    };
  })) {};
in {
  options = {
    inherit assertions;
    home = {
      inherit packages;
      homeDirectory = of types.str "/home/ann";
      stateVersion = of types.str "";
      username = of types.str "ann";
    };
    xdg.configFile = files;
    systemd.user = {
      services = units;
      slices = units;
    };
    launchd.agents = of (types.attrsOf (types.submodule {
      options = {
        enable = flag;
        config = set;
      };
      config.config.Label = lib.mkDefault "org.nix-community.home.job";
    })) {};
  };
}
