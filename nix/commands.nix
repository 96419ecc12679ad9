# What a sandbox on NixOS finds in /usr/bin: static, since it is shown no store. On other systems
# these are the machine's own programs.
{
  pkgsStatic,
  runCommand,
}:
runCommand "lender-commands" {} ''
  mkdir -p "$out/bin"
  cp -a ${pkgsStatic.busybox}/bin/. "$out/bin"
  chmod u+w "$out/bin"
  cp -f ${pkgsStatic.bash}/bin/bash "$out/bin/bash"
''
