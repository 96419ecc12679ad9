# What our modules make of an owner's configuration, for tests/contract/test_nix.py:
#   nix-instantiate --eval --strict --json --readonly-mode --store dummy:// evaluate.nix -A nixos.plain
# With `--arg lib 'import PATH/lib'` it is the real library (docs/nix.md).
{lib ? import ./lib}: let
  evaluated = world: pkgs: module: configuration:
    (lib.evalModules {
      modules = [world module configuration];
      specialArgs = {inherit pkgs;};
    })
    .config;
  linux = import ./world/pkgs.nix {inherit lib;};
  mac = import ./world/pkgs.nix {
    inherit lib;
    isDarwin = true;
  };
  modules = ../../nix/modules;
  content = builtins.mapAttrs (_: file: file.source.content);
  broken = config: map (one: one.message) (builtins.filter (one: !one.assertion) config.assertions);

  machine = module: configuration: let
    config = evaluated ./world/nixos.nix linux module configuration;
  in {
    inherit (config) boot services systemd users;
    inherit (config.networking) firewall;
    packages = map (one: one.name) config.environment.systemPackages;
    files = content config.environment.etc;
    broken = broken config;
  };
  person = pkgs: configuration: let
    config = evaluated ./world/home.nix pkgs (modules + "/home-manager.nix") configuration;
  in {
    inherit (config) launchd systemd;
    files = content config.xdg.configFile;
    broken = broken config;
  };
  apple = configuration: let
    config = evaluated ./world/darwin.nix mac (modules + "/darwin.nix") configuration;
  in {
    inherit (config) launchd users;
    files = content config.environment.etc;
    broken = broken config;
  };
  wsl = {lib, ...}: {
    options.wsl.enable = lib.mkEnableOption "NixOS-WSL";
    config.wsl.enable = true;
  };

  cases = import ./cases.nix;
  each = builtins.mapAttrs;
  written = evaluation: {inherit (evaluation) files systemd;};
in {
  nixos = each (_: machine (modules + "/nixos")) cases.nixos;
  headless-pi = machine (modules + "/nixos/headless-pi.nix") {};
  wsl = {
    without = machine (modules + "/nixos/wsl.nix") {};
    within = machine (modules + "/nixos/wsl.nix") {imports = [wsl];};
  };
  home = each (_: person linux) cases.home;
  mac-home = each (_: person mac) cases.mac-home;
  darwin = each (_: apple) cases.darwin;
  # Each of them has to be refused; what is asked for is what would show it.
  refused =
    each (_: configuration: written (machine (modules + "/nixos") configuration)) cases.refused.nixos
    // each (_: configuration: written (person linux configuration)) cases.refused.home;
}
