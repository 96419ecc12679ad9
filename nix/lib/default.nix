{lib}: {
  systemd = import ./systemd-unit.nix {inherit lib;};
  launchd = import ./plist.nix {inherit lib;};
  files = import ./files.nix {inherit lib;};
  options = import ./options.nix {inherit lib;};
}
