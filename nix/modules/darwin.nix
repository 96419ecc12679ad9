# lenderd as a Mac's own service, from boot on: launchd/daemon, for nix-darwin. For one user's see
# home-manager.nix.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkIf mkOption types;
  ours = import ../lib {inherit lib;};
  cfg = config.services.lender;
  plist =
    ours.launchd.read ../../launchd/daemon/lender.lenderd.plist "${cfg.package}/bin" "/var/empty";
  account = plist.EnvironmentVariables.LENDERD_USER;
in {
  options.services.lender =
    ours.options.lenderd {
      inherit pkgs;
      lending = "lending what this Mac doesn't use, as far as its owner agreed";
      credentialsFile.description = ''
        File that the NATS server lets this machine in by, readable for the account ${account}.
        null: what `lender enroll` left.
      '';
    }
    // {
      uid = mkOption {
        type = types.int;
        default = 539;
        description = "Of the account ${account}, which nobody can log in to; and its group's id.";
      };
    };

  config = mkIf cfg.enable {
    environment.systemPackages = [cfg.package];
    environment.etc = ours.files pkgs cfg;
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
