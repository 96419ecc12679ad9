# Options that the modules for NixOS, nix-darwin and Home Manager have in common.
{lib}: let
  inherit (lib) mkEnableOption mkOption types;
in rec {
  # What each lenderd has, whoever starts it.
  lenderd = {
    pkgs,
    lending,
    place ? outside,
    credentialsFile,
  }: {
    enable = mkEnableOption lending;
    package = package pkgs;
    settings = lenderdSettings pkgs place;
    proposals = proposals pkgs;
    credentialsFile = secret ({type = place;} // credentialsFile);
  };

  # A secret by its place on the machine. A path of Nix would be copied into the store, which
  # everybody may read: so a text, and none that leads there.
  secret = {
    type ? outside,
    description,
    example ? "/run/agenix/lenderd",
  }:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description example;
    };

  outside = types.pathWith {
    absolute = true;
    inStore = false;
  };

  package = pkgs:
    mkOption {
      type = types.package;
      default = pkgs.lender or (pkgs.callPackage ../package.nix {});
      defaultText = lib.literalExpression "pkgs.lender, or as this flake builds it";
      description = "Where lender, lenderd and lender-broker come from.";
    };

  # Free keys as in the file; those that name a secret are held to a place outside of the store.
  lenderdSettings = pkgs: place: let
    secret = mkOption {
      type = types.nullOr place;
      default = null;
      description = "A file on this machine; see docs/nix.md.";
    };
    free = options:
      types.submodule {
        freeformType = (pkgs.formats.toml {}).type;
        inherit options;
      };
  in
    mkOption {
      type = free {
        credentials = secret;
        mqtt = mkOption {
          type = types.nullOr (free {credentials = secret;});
          default = null;
          description = "The house's MQTT server: docs/home-automation.md.";
        };
      };
      default = {};
      example = lib.literalExpression "{ slots = 2; labels = [\"site:berlin\"]; }";
      description = "What stands in lenderd.toml: lender/daemon/settings.py.";
    };

  brokerSettings = pkgs: let
    toml = pkgs.formats.toml {};
  in
    mkOption {
      inherit (toml) type;
      default = {};
      example = lib.literalExpression "{ embedded = true; }";
      description = "What stands in broker.toml: broker/service/settings.py.";
    };

  # Words for the owner to agree to. Nothing runs by them: `lender grants` shows them, and
  # `lender grant --proposed NAME` asks.
  proposals = pkgs:
    mkOption {
      type = types.attrsOf (types.submodule {
        freeformType = (pkgs.formats.toml {}).type;
        options = {
          submitter = mkOption {
            type = types.str;
            example = "alice=UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
            description = "Name and public key of who would run work here.";
          };
          workload = mkOption {
            type = types.str;
            example = "render";
            description = "What they would run, with @SHA256 for one program only.";
          };
          expires = mkOption {
            type = types.str;
            example = "90d";
            description = "Until when, from the owner's yes on, or a date.";
          };
        };
      });
      default = {};
      description = ''
        Grants that are proposed to this machine's owner. Each takes effect when its owner has read
        and agreed to it on this machine (`lender grant --proposed NAME`), and asks anew when it
        changes. Other keys are the options of `lender grant`: cpu, mem, net, when, budget.
      '';
    };
}
