# lenderd as the machine's service: systemd/system/lenderd.service, with what NixOS needs besides.
# It opens no port, and no option of it makes a grant.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkIf mkMerge mkOption types;
  ours = import ../../lib {inherit lib;};
  inherit (ours) systemd;
  cfg = config.services.lender;
  bin = "${cfg.package}/bin";
  files = ours.files pkgs cfg;
  # Where systemd puts what it was told to hand over (systemd.exec(5), "Credentials").
  credentials = "/run/credentials/lenderd.service";
in {
  options.services.lender =
    ours.options.lenderd {
      inherit pkgs;
      lending = "lending what this machine doesn't use, as far as its owner agreed";
      credentialsFile.description = ''
        File that the NATS server lets this machine in by; systemd hands it to lenderd. null: what
        `lender enroll` left, or /etc/credstore/lenderd.creds.
      '';
    }
    // {
      mqttCredentialsFile = ours.options.secret {
        description = "File with `user:password` for the house's MQTT server, handed over likewise.";
        example = "/run/secrets/mqtt";
      };
      commands = mkOption {
        type = types.nullOr types.package;
        default = pkgs.callPackage ../../commands.nix {};
        defaultText = lib.literalExpression "busybox and bash, static";
        description = ''
          What commands in sandboxes find as /usr. NixOS has nothing there; null leaves it so, and
          what is lent without is what the self-test shows.
        '';
      };
      agent.enable = mkEnableOption "telling lenderd from each user's session whether somebody is here";
    };

  config = mkMerge [
    (mkIf cfg.enable {
      # Sandboxes are started by bubblewrap and crun, which are looked for where NixOS puts these.
      environment.systemPackages = [cfg.package pkgs.bubblewrap pkgs.crun];
      environment.etc = files;

      services.lender.settings.mqtt = mkIf (cfg.mqttCredentialsFile != null) {
        credentials = mkDefault "${credentials}/mqtt.creds";
      };

      users.users.lender = {
        isSystemUser = true;
        group = "lender";
        home = "/var/lib/lender";
        description = "Lends what this machine doesn't use";
      };
      users.groups.lender = {};

      systemd.slices.lender = let
        slice = systemd.parse (builtins.readFile ../../../systemd/lender.slice);
      in {
        description = mkDefault slice.Unit.Description;
        sliceConfig = builtins.mapAttrs (_: mkDefault) slice.Slice;
      };
      systemd.services.lenderd = mkMerge [
        (systemd.nixos (systemd.read ../../../systemd/system/lenderd.service bin))
        {
          restartTriggers = [files."lender/lenderd.toml".source];
          serviceConfig = mkMerge [
            (mkIf (cfg.credentialsFile != null || cfg.mqttCredentialsFile != null) {
              LoadCredential =
                (
                  if cfg.credentialsFile == null
                  then ["lenderd.creds"]
                  else ["lenderd.creds:${cfg.credentialsFile}"]
                )
                ++ lib.optional (cfg.mqttCredentialsFile != null) "mqtt.creds:${cfg.mqttCredentialsFile}";
            })
            (mkIf (cfg.commands != null) {BindReadOnlyPaths = ["${cfg.commands}:/usr"];})
          ];
        }
      ];
    })
    (mkIf cfg.agent.enable {
      systemd.user.services.lender-agent =
        systemd.nixos (systemd.read ../../../systemd/user/lender-agent.service bin);
    })
  ];
}
