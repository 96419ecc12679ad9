# As much of nixpkgs' library as our modules use, so that they are evaluated where there is only Nix
# itself (Debian's nix-bin). What it lets through the real one need not: docs/nix.md says what was
# run with that.
let
  lists = import ./lists.nix;
  properties = import ./properties.nix;
  lib =
    lists
    // properties
    // import ./modules.nix {inherit lib;}
    // {types = import ./types.nix {inherit lib;};};
in
  lib
