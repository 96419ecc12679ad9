# Modules: options that are declared, and what becomes of their definitions.
{lib}: let
  inherit (builtins) attrNames concatMap functionArgs isAttrs isFunction isPath isString mapAttrs removeAttrs;
  isOption = value: isAttrs value && value._type or "" == "option";

  # A module and those that it imports -> list of { key, options, config, freeform }
  collected = args: module: let
    loaded =
      if isPath module || isString module
      then import module
      else module;
    plain =
      if isFunction loaded
      then loaded (mapAttrs (name: _: args.${name}) (functionArgs loaded) // args)
      else loaded;
    hasParts = plain ? config || plain ? options || plain ? freeformType;
    usual = {
      key =
        if isPath module
        then toString module
        else null;
      options = {};
    };
  in
    concatMap (collected args) (plain.imports or [])
    ++ [
      {
        inherit (usual // plain) key options;
        freeform = plain.freeformType or null;
        config =
          if hasParts
          then plain.config or {}
          else removeAttrs plain ["imports" "key" "_file" "_class"];
      }
    ];

  joined = a: b:
    a
    // mapAttrs (name: value:
      if a ? ${name} && !isOption value
      then joined a.${name} value
      else value)
    b;

  # Of modules with one key the first.
  once = modules:
    builtins.foldl' (seen: one:
      if one.key != null && builtins.any (other: other.key == one.key) seen
      then seen
      else seen ++ [one]) []
    modules;

  at = name: sets: concatMap (set: lib.optional (set ? ${name}) set.${name}) sets;

  valued = place: option: definitions: let
    values = lib.resolved definitions;
    usual = option.default or (throw "option ${builtins.concatStringsSep "." place} is not set");
  in
    option.type.merge place (
      if values == []
      then [usual]
      else values
    );

  evaluated = place: options: freeform: definitions: let
    sets = concatMap lib.pushed definitions;
    others = map (set: removeAttrs set (attrNames options)) sets;
    unknown = concatMap attrNames others;
    known = mapAttrs (name: option: let
      here = place ++ [name];
    in
      if isOption option
      then valued here option (at name sets)
      else evaluated here option null (at name sets))
    options;
  in
    if freeform != null
    then freeform.merge place others // known
    else if unknown == []
    then known
    else throw "no option ${builtins.concatStringsSep "." (place ++ [(builtins.head unknown)])}";
in {
  mkEnableOption = what:
    lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether to have ${what}.";
    };

  evalModules = {
    modules,
    specialArgs ? {},
    place ? [],
  }: let
    all = once (concatMap (collected (specialArgs // {inherit config lib;})) modules);
    freeforms = builtins.filter (one: one != null) (map (one: one.freeform) all);
    config =
      evaluated place (builtins.foldl' joined {} (map (one: one.options) all))
      (
        if freeforms == []
        then null
        else builtins.head freeforms
      )
      (map (one: one.config) all);
  in {inherit config;};
}
