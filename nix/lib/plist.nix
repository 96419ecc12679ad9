# A property list of launchd as a value, so that launchd/ stays the only place where one is described.
{lib}: let
  # text -> list of { tag } and { text }, comments and what stands before <plist> left out
  tokens = text: let
    parts = builtins.split "<([^>]*)>" (lib.last (lib.splitString "<plist version=\"1.0\">" text));
    token = part:
      if builtins.isList part
      then {tag = builtins.head part;}
      else {text = builtins.replaceStrings ["&lt;" "&gt;" "&amp;"] ["<" ">" "&"] part;};
  in
    lib.filter (one: builtins.match "[ \n]*" (one.text or "x") == null) (map token parts);

  tag = stream: (builtins.head stream).tag or "";
  after = builtins.tail;

  # Each takes the stream behind its opening tag, and returns a value with what is left.
  value = stream: let
    name = tag stream;
    rest = after stream;
    leaf = read:
      if tag rest == "/${name}"
      then {
        value = read "";
        rest = after rest;
      }
      else {
        value = read (builtins.head rest).text;
        rest = after (after rest);
      };
    kinds = {
      "true/" = {
        value = true;
        inherit rest;
      };
      "false/" = {
        value = false;
        inherit rest;
      };
      string = leaf (text: text);
      integer = leaf lib.toInt;
      array = items rest [];
      dict = pairs rest {};
    };
  in
    kinds.${name} or (throw "not known in a property list: <${name}>");

  items = stream: found:
    if tag stream == "/array"
    then {
      value = found;
      rest = after stream;
    }
    else let
      one = value stream;
    in
      items one.rest (found ++ [one.value]);

  # <key>, its text, </key>, then the value
  pairs = stream: found:
    if tag stream == "/dict"
    then {
      value = found;
      rest = after stream;
    }
    else let
      key = (builtins.elemAt stream 1).text;
      one = value (lib.drop 3 stream);
    in
      pairs one.rest (found // {${key} = one.value;});
in rec {
  parse = text: (value (tokens text)).value;

  # What an owner says in the same option goes before ours, but for the name: the modules of others
  # have a usual one, too.
  defaults = plist: builtins.mapAttrs (_: lib.mkDefault) plist // {inherit (plist) Label;};

  # file, folder of programs, the user's home -> the same, with full paths
  read = file: bin: home: let
    shipped = parse (builtins.readFile file);
    inHome = builtins.replaceStrings ["~/"] ["${home}/"];
    program = builtins.head shipped.ProgramArguments;
  in
    shipped
    // {
      ProgramArguments = ["${bin}/${program}"] ++ builtins.tail shipped.ProgramArguments;
      StandardOutPath = inHome shipped.StandardOutPath;
      StandardErrorPath = inHome shipped.StandardErrorPath;
    };
}
