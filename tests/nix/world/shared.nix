# Kinds of options that several systems have.
{lib}: let
  inherit (lib) mkOption types;
  mkType = lib.mkOptionType or (type: type);
in rec {
  # One value, or several that are written one below the other.
  unitValue = mkType {
    name = "value of a unit";
    check = _: true;
    merge = place: definitions: let
      values = map (one: one.value or one) definitions;
    in
      if builtins.any builtins.isList values
      then
        builtins.concatMap (value:
          if builtins.isList value
          then value
          else [value])
        values
      else if builtins.length (lib.unique values) == 1
      then builtins.head values
      else throw "${builtins.concatStringsSep "." place} has several values";
  };
  of = type: default: mkOption {inherit type default;};
  flag = of types.bool false;
  texts = of (types.listOf types.str) [];
  packages = of (types.listOf types.package) [];
  section = of (types.attrsOf unitValue) {};
  assertions = of (types.listOf (lib.types.data or types.anything)) [];
  files = of (types.attrsOf (types.submodule {options.source = mkOption {type = types.package;};})) {};
  set = of (types.attrsOf (lib.types.data or types.anything)) {};
}
