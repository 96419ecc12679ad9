# What the flake offers. For each system: packages, a shell, checks, a formatter; and modules.
{
  config,
  inputs,
  lib,
  self,
  ...
}: let
  revision = self.rev or null;
  build = pkgs: pkgs.callPackage ./package.nix {inherit revision;};
  # With this flake's revision written into the package, unless somebody names another one.
  ours = module: {
    imports = [
      module
      ({pkgs, ...}: {
        # Once, also where somebody imports two of them.
        key = "lender#package";
        services.lender.package = lib.mkDefault (build pkgs);
      })
    ];
  };
  both = modules: {inherit (modules) lender;} // {default = modules.lender;};
in {
  imports = [inputs.flake-parts.flakeModules.modules];

  systems = ["x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin"];

  flake = {
    modules = {
      nixos = {
        lender = ours ./modules/nixos;
        headless-pi = ours ./modules/nixos/headless-pi.nix;
        wsl = ours ./modules/nixos/wsl.nix;
      };
      darwin.lender = ours ./modules/darwin.nix;
      homeManager.lender = ours ./modules/home-manager.nix;
    };
    nixosModules =
      both config.flake.modules.nixos
      // {inherit (config.flake.modules.nixos) headless-pi wsl;};
    darwinModules = both config.flake.modules.darwin;
    homeModules = both config.flake.modules.homeManager;
    clan.modules.lender = import ./clan {nixosModule = config.flake.modules.nixos.lender;};
    overlays.default = final: _: {lender = build final;};
  };

  perSystem = {
    pkgs,
    self',
    ...
  }: {
    packages = {
      default = self'.packages.lender;
      lender = build pkgs;
    };
    formatter = pkgs.alejandra;
    devShells.default = pkgs.mkShell {
      packages =
        [
          (pkgs.python3.withPackages (ps: [(self'.packages.lender.module ps) ps.pytest ps.hypothesis]))
          pkgs.alejandra
          pkgs.deadnix
          pkgs.mypy
          pkgs.nats-server
          pkgs.ruff
          pkgs.statix
        ]
        ++ lib.optionals pkgs.stdenv.hostPlatform.isLinux [pkgs.bubblewrap pkgs.crun];
    };
    checks = import ./checks.nix {
      inherit lib pkgs;
      inherit (self'.packages) lender;
      module = config.flake.modules.nixos.lender;
    };
  };
}
