# What each lenderd is told by files below the folder of configurations: /etc, or a user's.
{lib}: pkgs: {
  proposals,
  settings,
  ...
}: let
  toml = pkgs.formats.toml {};
  # TOML has no word for nothing.
  said = lib.filterAttrsRecursive (_: value: value != null);
in
  {"lender/lenderd.toml".source = toml.generate "lenderd.toml" (said settings);}
  // lib.mapAttrs' (name: proposal:
    lib.nameValuePair "lender/proposals/${name}.toml" {
      source = toml.generate "${name}.toml" proposal;
    })
  proposals
