# lenderd as a user's own service: systemd/user/lenderd.service on Linux, launchd/agent on macOS.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkEnableOption mkIf mkMerge types;
  inherit (pkgs.stdenv.hostPlatform) isDarwin isLinux;
  ours = import ../lib {inherit lib;};
  inherit (ours) launchd systemd;
  cfg = config.services.lender;
  bin = "${cfg.package}/bin";

  # A text, since secrets of a user lie below ''${XDG_RUNTIME_DIR}, whose name is known later.
  secret =
    types.addCheck types.str (text:
      (lib.hasPrefix "/" text || lib.hasPrefix "$" text) && !lib.hasPrefix builtins.storeDir text);
  # systemd's word for that folder; launchd hands nothing over, and lenderd reads the file itself.
  inUnit = builtins.replaceStrings ["\${XDG_RUNTIME_DIR}" "$XDG_RUNTIME_DIR"] ["%t" "%t"];

  files = ours.files pkgs cfg;
  unit = systemd.home (systemd.read ../../systemd/user/lenderd.service bin);
  agent = launchd.read ../../launchd/agent/lender.lenderd.plist bin config.home.homeDirectory;
in {
  options.services.lender =
    ours.options.lenderd {
      inherit pkgs;
      place = secret;
      lending = "lending what this machine doesn't use, as far as you agreed";
      credentialsFile = {
        description = ''
          File that the NATS server lets this machine in by; ''${XDG_RUNTIME_DIR} may stand in it
          on Linux. null: what `lender enroll` left.
        '';
        example = "\${XDG_RUNTIME_DIR}/agenix/lenderd";
      };
    }
    // {
      agent.enable = mkEnableOption "telling the machine's own lenderd whether you are here";
    };

  config = mkMerge [
    (mkIf cfg.enable {
      home.packages = [cfg.package];
      xdg.configFile = files;
    })
    (mkIf (cfg.enable && isLinux) {
      systemd.user.slices.lender =
        systemd.home (systemd.parse (builtins.readFile ../../systemd/lender.slice));
      systemd.user.services.lenderd = mkMerge [
        unit
        {Unit.X-Restart-Triggers = ["${files."lender/lenderd.toml".source}"];}
        (mkIf (cfg.credentialsFile != null) {
          # What decrypts secrets for a user, where there is one of these.
          Unit.After = ["agenix.service" "sops-nix.service"];
          Service.LoadCredential = "lenderd.creds:${inUnit cfg.credentialsFile}";
        })
      ];
    })
    (mkIf (cfg.enable && isDarwin) {
      services.lender.settings.credentials = mkIf (cfg.credentialsFile != null) cfg.credentialsFile;
      assertions = [
        {
          assertion =
            cfg.credentialsFile == null || lib.hasPrefix "/" cfg.credentialsFile;
          message = "services.lender.credentialsFile is a full path on macOS: launchd knows no variables";
        }
      ];
      launchd.agents.lenderd = {
        enable = true;
        config = launchd.defaults agent;
      };
    })
    (mkIf (cfg.agent.enable && isLinux) {
      systemd.user.services.lender-agent =
        systemd.home (systemd.read ../../systemd/user/lender-agent.service bin);
    })
  ];
}
