# lenderd as a Mac's own service, from boot on: launchd/daemon, for nix-darwin. For one user's see
# home-manager.nix.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkEnableOption mkIf mkOption types;
  ours = import ../lib {inherit lib;};
  cfg = config.services.lender;
  toml = pkgs.formats.toml {};
  plist =
    ours.launchd.read ../../launchd/daemon/lender.lenderd.plist "${cfg.package}/bin" "/var/empty";
  account = plist.EnvironmentVariables.LENDERD_USER;
in {
  options.services.lender = {
    enable = mkEnableOption "lending what this Mac doesn't use, as far as its owner agreed";
    package = ours.options.package pkgs;
    settings = ours.options.lenderdSettings pkgs ours.options.outside;
    proposals = ours.options.proposals pkgs;
    credentialsFile = ours.options.secret {
      type = ours.options.outside;
      description = ''
        File that the NATS server lets this machine in by, readable for the account ${account}.
        null: what `lender enroll` left.
      '';
    };
    uid = mkOption {
      type = types.int;
      default = 539;
      description = "Of the account ${account}, which nobody can log in to; and its group's id.";
    };
  };

  config = mkIf cfg.enable {
    environment.systemPackages = [cfg.package];
    environment.etc =
      {
        "lender/lenderd.toml".source =
          toml.generate "lenderd.toml" (ours.options.said cfg.settings);
      }
      // lib.mapAttrs' (name: proposal:
        lib.nameValuePair "lender/proposals/${name}.toml" {
          source = toml.generate "${name}.toml" proposal;
        })
      cfg.proposals;
    # launchd hands no secret over: lenderd reads the file itself.
    services.lender.settings.credentials = mkIf (cfg.credentialsFile != null) cfg.credentialsFile;

    users = {
      knownUsers = [account];
      knownGroups = [account];
      users.${account} = {
        inherit (cfg) uid;
        gid = cfg.uid;
        home = "/var/empty";
        shell = "/usr/bin/false";
        isHidden = true;
        description = "Lends what this Mac doesn't use";
      };
      groups.${account}.gid = cfg.uid;
    };

    launchd.daemons.lenderd = {
      # Behind the words with which nix-darwin waits for the store's volume.
      command = toString plist.ProgramArguments;
      serviceConfig = ours.launchd.defaults (removeAttrs plist ["ProgramArguments"]);
    };
  };
}
