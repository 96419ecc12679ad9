# Where somebody works.
{
  home = {
    username = "ann";
    homeDirectory = "/home/ann";
    stateVersion = "25.11";
  };
  services.lender = {
    enable = true;
    credentialsFile = "\${XDG_RUNTIME_DIR}/agenix/lenderd";
  };
}
