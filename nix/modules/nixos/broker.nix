# The broker as a service: systemd/system/lender-broker.service.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkEnableOption mkIf mkMerge;
  ours = import ../../lib {inherit lib;};
  inherit (ours) systemd;
  top = config.services.lender;
  cfg = top.broker;
  settings = (pkgs.formats.toml {}).generate "broker.toml" cfg.settings;
in {
  options.services.lender.broker = {
    enable = mkEnableOption "giving submitters' jobs to the machines that lend";
    settings = ours.options.brokerSettings pkgs;
    credentialsFile = ours.options.secret {
      description = ''
        File that the NATS server lets the broker in by; systemd hands it over. null: what
        `lender-broker init` left, or /etc/credstore/lender-broker.creds.
      '';
      example = "/run/secrets/lender-broker";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = !(cfg.settings ? credentials);
        message = "services.lender.broker.credentialsFile names the secret, not settings.credentials";
      }
    ];
    environment.systemPackages = [top.package];
    environment.etc."lender/broker.toml".source = settings;

    users.users.lender-broker = {
      isSystemUser = true;
      group = "lender-broker";
      home = "/var/lib/lender-broker";
      description = "Gives jobs to the machines that lend";
    };
    users.groups.lender-broker = {};

    systemd.services.lender-broker = mkMerge [
      (systemd.nixos
        (systemd.read ../../../systemd/system/lender-broker.service "${top.package}/bin"))
      {
        # For `embedded = true`.
        path = [pkgs.nats-server];
        restartTriggers = [settings];
        serviceConfig = mkIf (cfg.credentialsFile != null) {
          LoadCredential = "lender-broker.creds:${cfg.credentialsFile}";
        };
      }
    ];
  };
}
