# Types of options: what they let through, and how several definitions become one value.
{lib}: let
  inherit (builtins) all attrNames concatMap head isAttrs isBool isInt isList isPath isString length storeDir;
  where = place: builtins.concatStringsSep "." place;
  # As JSON a path would be its copy in the store.
  shown = value:
    if isPath value
    then toString value
    else builtins.toJSON value;
  fails = place: type: value: throw "option ${where place}: ${shown value} is no ${type.name}";
  checked = type: place: values:
    if all type.check values
    then values
    else fails place type (head (builtins.filter (value: !type.check value) values));
  same = type: place: values: let
    found = lib.unique (checked type place values);
  in
    if length found == 1
    then head found
    else throw "option ${where place} has ${toString (length found)} values that differ";
  simple = name: check: let
    type = {
      inherit name check;
      merge = same type;
    };
  in
    type;
  isPackage = value: isAttrs value && value.type or "" == "derivation";
in rec {
  bool = simple "boolean" isBool;
  str = simple "text" isString;
  int = simple "number" isInt;
  port = simple "port" (value: isInt value && value >= 0 && value <= 65535);
  package = simple "package" isPackage;
  path = simple "path" (value: isPath value || isPackage value || (isString value && lib.hasPrefix "/" value));
  # A path of Nix would be copied into the store once it stands in a text.
  pathWith = {
    absolute,
    inStore,
  }:
    assert absolute && !inStore;
      simple "absolute path outside of the store"
      (value: isString value && lib.hasPrefix "/" value && !lib.hasPrefix storeDir value);
  addCheck = type: check: let
    narrower =
      type
      // {
        name = "${type.name} of a narrower kind";
        check = value: type.check value && check value;
        merge = same narrower;
      };
  in
    narrower;
  nullOr = type: {
    name = "${type.name} or null";
    check = value: value == null || type.check value;
    merge = place: values:
      if all (value: value == null) values
      then null
      else type.merge place (builtins.filter (value: value != null) values);
  };
  listOf = type: {
    name = "list";
    check = isList;
    merge = place: values:
      concatMap (map (value: type.merge place [value])) (checked (listOf type) place values);
  };
  attrsOf = type: {
    name = "set";
    check = isAttrs;
    merge = place: values: let
      sets = concatMap lib.pushed (checked (attrsOf type) place values);
      named = name: lib.resolved (concatMap (set: lib.optional (set ? ${name}) set.${name}) sets);
      names = lib.unique (concatMap attrNames sets);
    in
      builtins.listToAttrs (map (name: lib.nameValuePair name (type.merge (place ++ [name]) (named name)))
        (builtins.filter (name: named name != []) names));
  };
  # What a file may hold: sets as sets, and all else as one value.
  data = {
    name = "data";
    check = _: true;
    merge = place: values:
      if all isAttrs values && !(builtins.any isPackage values)
      then (attrsOf data).merge place values
      else same data place values;
  };
  anything = data;
  submodule = module: {
    name = "submodule";
    check = isAttrs;
    merge = place: values:
      (lib.evalModules {
        modules = [module] ++ map (config: {inherit config;}) values;
        inherit place;
      })
      .config;
  };
}
