# The secret by agenix: its place, never its text. For a user's lenderd see docs/nix.md.
{config, ...}: {
  age.secrets.lenderd.file = ./secrets/lenderd.age;
  services.lender = {
    enable = true;
    credentialsFile = config.age.secrets.lenderd.path;
  };
}
