# What `nix flake check` builds: style, what is never used, the package, and a machine that boots.
{
  lender,
  lib,
  module,
  pkgs,
}: let
  over = name: packages: command:
    pkgs.runCommand "lender-${name}" {nativeBuildInputs = packages;} ''
      cd ${../.}
      ${command}
      touch "$out"
    '';
in
  {
    inherit lender;
    alejandra = over "alejandra" [pkgs.alejandra] "alejandra --check flake.nix nix tests/nix";
    statix = over "statix" [pkgs.statix] "statix check";
    deadnix = over "deadnix" [pkgs.deadnix] "deadnix --fail flake.nix nix tests/nix";
  }
  // lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux {
    nixos = pkgs.testers.runNixOSTest {
      name = "lender";
      nodes.machine = {
        imports = [module];
        services.lender = {
          enable = true;
          nats.enable = true;
          broker.enable = true;
        };
      };
      testScript = ''
        machine.wait_for_unit("lender-broker.service")
        machine.wait_for_unit("lenderd.service")
        machine.succeed("lender status --json | grep -q unconsented")
        machine.fail("ss -tlnH | grep lenderd")
        machine.succeed("lender pause && lender resume")
        machine.succeed("systemctl stop lenderd")
        machine.fail("pgrep -u lender")
      '';
    };
  }
