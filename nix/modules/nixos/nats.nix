# The NATS server as what lender asks of one. Alone it serves this machine; a fleet's is what
# `lender-broker init` wrote (docs/deployment.md).
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkDefault mkEnableOption mkForce mkIf mkMerge mkOption types;
  ours = import ../../lib {inherit lib;};
  cfg = config.services.lender.nats;
  loopback = ["127.0.0.1" "::1" "localhost"];
in {
  options.services.lender.nats = {
    enable = mkEnableOption "a NATS server with JetStream, for lender";
    host = mkOption {
      type = types.str;
      default = "127.0.0.1";
      description = "Address that it listens on, where there is no configFile.";
    };
    port = mkOption {
      type = types.port;
      default = 4222;
      description = "Of clients; a configFile names its own, which openFirewall is then told here.";
    };
    configFile = ours.options.secret {
      description = ''
        The server.conf of a deployment, which lets in only whom it vouches for. It names keys
        beside it, so all of them stay outside of the store, readable for the user `nats` alone.
      '';
      example = "/var/lib/nats/server/server.conf";
    };
    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether other machines get through to the port.";
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      assertions = [
        {
          assertion =
            cfg.configFile != null || (builtins.elem cfg.host loopback && !cfg.openFirewall);
          message = ''
            services.lender.nats would let in everybody who reaches it: make a deployment
            (lender-broker init) and name its server.conf by services.lender.nats.configFile.
          '';
        }
      ];
      services.nats = {
        enable = true;
        jetstream = true;
        serverName = mkDefault config.networking.hostName;
        inherit (cfg) host port;
        settings = {
          max_payload = 8388608;
          # What is acknowledged survives a power cut; brokers commit many results with one sync.
          jetstream.sync_interval = "always";
        };
      };
    }
    (mkIf (cfg.configFile != null) {
      systemd.services.nats.serviceConfig.ExecStart =
        mkForce "${pkgs.nats-server}/bin/nats-server -c ${cfg.configFile}";
    })
    (mkIf cfg.openFirewall {networking.firewall.allowedTCPPorts = [cfg.port];})
  ]);
}
