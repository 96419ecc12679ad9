# Plain functions.
let
  inherit (builtins) elemAt head length listToAttrs split stringLength substring tail;
in rec {
  inherit (builtins) foldl' filter concatMap concatStringsSep isAttrs isList isString;
  optional = cond: one: optionals cond [one];
  optionals = cond: many:
    if cond
    then many
    else [];
  optionalAttrs = cond: attrs:
    if cond
    then attrs
    else {};
  optionalString = cond: text:
    if cond
    then text
    else "";
  last = list: elemAt list (length list - 1);
  drop = count: list:
    if count == 0
    then list
    else drop (count - 1) (tail list);
  unique = builtins.foldl' (seen: one:
    if builtins.elem one seen
    then seen
    else seen ++ [one]) [];
  nameValuePair = name: value: {inherit name value;};
  mapAttrs' = make: attrs:
    listToAttrs (map (name: make name attrs.${name}) (builtins.attrNames attrs));
  filterAttrsRecursive = keep: attrs:
    listToAttrs (concatMap (name: let
      value = attrs.${name};
    in
      optional (keep name value) (nameValuePair name (
        if isAttrs value
        then filterAttrsRecursive keep value
        else value
      ))) (builtins.attrNames attrs));
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  escaped = builtins.replaceStrings ["." "\"" "<" ">" "=" "/"] ["[.]" "\"" "<" ">" "=" "/"];
  splitString = at: text: filter isString (split (escaped at) text);
  toInt = text: builtins.fromJSON (head (builtins.match " *([0-9]+) *" text));
}
