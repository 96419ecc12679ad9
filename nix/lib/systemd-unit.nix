# A unit file of systemd as a value, so that systemd/ stays the only place where a unit is described.
{lib}: let
  entry = seen: line: let
    header = builtins.match "\\[([A-Za-z]+)]" line;
    pair = builtins.match "([A-Za-z]+)=(.*)" line;
    section = seen.unit.${seen.section} or {};
    key = builtins.head pair;
  in
    if line == "" || lib.hasPrefix "#" line
    then seen
    else if header != null
    then seen // {section = builtins.head header;}
    else if pair == null
    then throw "no line of a unit: ${line}"
    else
      seen
      // {
        unit =
          seen.unit
          // {${seen.section} = section // {${key} = (section.${key} or []) ++ [(lib.last pair)];};};
      };

  # A key that stands once is a text, one that stands several times a list of them, in their order.
  plain = values:
    if builtins.length values == 1
    then builtins.head values
    else values;

  # Programs stand there by their names.
  located = bin: key: value:
    if lib.hasPrefix "Exec" key
    then "${bin}/${value}"
    else value;

  words = text: lib.filter (word: word != "") (lib.splitString " " text);
in rec {
  # text -> { Unit = { key = text or [text]; }; Service = ...; Install = ...; }
  parse = text:
    builtins.mapAttrs (_: builtins.mapAttrs (_: plain))
    (lib.foldl' entry {
      section = "";
      unit = {};
    } (lib.splitString "\n" text))
    .unit;

  # file, folder of programs -> the same, with their full paths
  read = file: bin:
    builtins.mapAttrs (_: builtins.mapAttrs (located bin)) (parse (builtins.readFile file));

  # A unit as NixOS has it. What an owner says in the same option goes before ours.
  nixos = unit: let
    ours = builtins.mapAttrs (_: lib.mkDefault);
    asked = unit.Unit or {};
    lists = ["Description" "After" "Wants"];
  in {
    description = lib.mkDefault asked.Description;
    after = words (asked.After or "");
    wants = words (asked.Wants or "");
    wantedBy = words unit.Install.WantedBy;
    unitConfig = ours (removeAttrs asked lists);
    serviceConfig = ours unit.Service;
  };

  # A unit as Home Manager has it, which makes links of what stands in Install.
  home = unit:
    builtins.mapAttrs (name:
      builtins.mapAttrs (_: value:
        if name == "Install"
        then words value
        else lib.mkDefault value))
    unit;
}
