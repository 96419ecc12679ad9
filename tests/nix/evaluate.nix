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
    inherit (config.environment) variables;
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

  # An instance of clan's inventory: a role's machines are those that it names, and those that have
  # one of its tags.
  inventory = {roles, ...}: tagging:
    each (_: {
      machines ? {},
      settings ? {},
      tags ? {},
    }: let
      having = names:
        builtins.listToAttrs (map (name: {
            inherit name;
            value = {};
          })
          names);
      tagged = builtins.foldl' (all: tag: all // having tagging.${tag}) {} (builtins.attrNames tags);
    in
      each (_: own: settings // (own.settings or {})) (tagged // machines))
    roles;

  # What a clan gives to a machine that has some roles of an instance.
  clan = let
    service = import ../../nix/clan {nixosModule = modules + "/nixos";};
    instance = settings: let
      roles = builtins.mapAttrs (_: machines: {inherit machines;}) settings;
      said = role: name:
        (lib.evalModules {
          modules = [service.roles.${role}.interface {config = settings.${role}.${name};}];
        })
        .config;
      given = name: role:
        (service.roles.${role}.perInstance {
          inherit roles;
          machine = {inherit name;};
          settings = said role name;
        })
        .nixosModule;
      held = name: builtins.filter (role: settings.${role} ? ${name}) (builtins.attrNames settings);
    in
      name:
        machine (modules + "/nixos") {
          imports = map (given name) (held name) ++ [vars];
        };
    vars = {lib, ...}: {
      options.clan = lib.mkOption {type = lib.types.anything;};
      config.clan.core.vars.generators.lender.files.credentials.path = "/run/secrets/vars/lender";
    };
  in
    each (_: fleet: each (name: _: instance fleet name) (fleet.lender // fleet.submitter))
    (cases.clan
      // {
        example = inventory (import ../../nix/examples/clan.nix).instances.lender {
          lending = ["attic" "pi"];
          desks = ["desk"];
        };
      });

  examples = let
    place = ../../nix/examples;
    secrets = {lib, ...}: {
      options = {
        age = lib.mkOption {type = lib.types.anything;};
        sops = lib.mkOption {type = lib.types.anything;};
      };
      config.age.secrets.lenderd.path = "/run/agenix/lenderd";
      config.sops.secrets.lenderd.path = "/run/secrets/lenderd";
    };
    nixos = file: machine (modules + "/nixos") {imports = [secrets (place + "/${file}.nix")];};
    owner = place + "/owner-overlay";
  in {
    nixos = nixos "nixos";
    agenix = nixos "agenix";
    sops = nixos "sops";
    home-manager = person linux {imports = [(place + "/home-manager.nix")];};
    mac = person mac {imports = [(place + "/home-manager.nix")];};
    darwin = apple {imports = [(place + "/darwin.nix")];};
    attic = machine (modules + "/nixos") {
      imports = [(owner + "/fleet.nix") (owner + "/machines/attic.nix")];
    };
    pi-shelf = machine (modules + "/nixos/headless-pi.nix") {
      imports = [(owner + "/fleet.nix") (owner + "/machines/pi-shelf.nix")];
    };
    desk = person linux {imports = [(owner + "/fleet.nix") (owner + "/machines/desk.nix")];};
  };

  cases = import ./cases.nix;
  each = builtins.mapAttrs;
  written = evaluation: {inherit (evaluation) files systemd;};
in {
  inherit clan examples;
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
