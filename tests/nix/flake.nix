# The flake's outputs, with inputs that do no more than their names say.
let
  lib = import ./lib;
  pkgs =
    import ./world/pkgs.nix {inherit lib;}
    // {
      alejandra = "alejandra";
    };
  flake-parts = {
    flakeModules.modules = {};
    lib.mkFlake = {inputs}: file: let
      module = import file {
        inherit inputs lib;
        inherit (inputs) self;
        config = {inherit (module) flake;};
      };
    in
      module.flake
      // {
        inherit (module) systems;
        each = module.perSystem {
          inherit pkgs;
          self' = module.perSystem {
            inherit pkgs;
            self' = {packages.lender = "lender";};
          };
        };
      };
  };
  outputs = (import ../../flake.nix).outputs {
    inherit flake-parts;
    self.rev = "0123";
    nixpkgs = {};
  };
  # Of a module what is to be imported; it is a function, which has no JSON.
  names = builtins.mapAttrs (_: builtins.attrNames);
in {
  names = builtins.attrNames outputs;
  modules = names outputs.modules;
  exported = names {inherit (outputs) nixosModules darwinModules homeModules overlays;};
  clan = builtins.attrNames outputs.clan.modules.lender.roles;
  each = builtins.attrNames outputs.each;
  packages = builtins.attrNames outputs.each.packages;
  overlaid = (outputs.overlays.default pkgs {}).lender.name;
}
