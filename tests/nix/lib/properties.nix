# What a definition may be wrapped in: a condition, several at once, a priority.
let
  inherit (builtins) concatMap foldl' isAttrs mapAttrs;
  kind = value:
    if isAttrs value
    then value._type or ""
    else "";
  # What a value comes to by its kind; what is wrapped in nothing has none.
  by = value: plain: kinds: kinds.${kind value} or plain;
  usual = 100;
in rec {
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  literalExpression = text: {
    _type = "literalExpression";
    inherit text;
  };
  mkOption = about: about // {_type = "option";};

  # A definition as plain attribute sets, its conditions moved to their values: whoever looks for
  # one option asks no condition of another.
  pushed = value:
    by value [value] {
      "merge" = concatMap pushed value.contents;
      "if" = map (mapAttrs (_: mkIf value.condition)) (pushed value.content);
      "override" = map (mapAttrs (_: mkOverride value.priority)) (pushed value.content);
    };

  # Definitions of one option -> the plain values that count.
  resolved = definitions: let
    all = concatMap ranked definitions;
    best =
      foldl' (least: one:
        if one.priority < least
        then one.priority
        else least)
      9999
      all;
  in
    map (one: one.value) (builtins.filter (one: one.priority == best) all);

  ranked = value:
    by value [
      {
        priority = usual;
        inherit value;
      }
    ] {
      "merge" = concatMap ranked value.contents;
      "if" =
        if value.condition
        then ranked value.content
        else [];
      "override" = map (one: one // {inherit (value) priority;}) (ranked value.content);
    };
}
