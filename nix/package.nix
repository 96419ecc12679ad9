# lender, lenderd and lender-broker, built from pyproject.toml with the Python packages of whoever
# builds it: their versions are theirs, and the import check says where one does not fit.
#
# Not buildPythonApplication: lenderd starts its sandboxes' launcher as `python -I -m lender...`, and
# a wrapped script's packages are not its interpreter's. An environment's are.
{
  lib,
  stdenv,
  python3,
  runCommand,
  # Which revision of the source this is, for `lender preflight --overlay`; null: not told.
  revision ? null,
}: let
  inherit (stdenv.hostPlatform) isLinux;
  version = (lib.importTOML ../pyproject.toml).project.version;
  programs = ["lender" "lenderd" "lender-broker"];

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../.ci/walls
      ../MANIFEST.in
      ../README.md
      ../broker
      ../launchd
      ../lender
      ../pyproject.toml
      ../setup.py
      ../systemd
      ../workloads
    ];
  };

  # Where a revision is written down for any Python distribution (PEP 610).
  origin = builtins.toJSON {
    url = "file://${builtins.unsafeDiscardStringContext "${src}"}";
    vcs_info = {
      vcs = "git";
      commit_id = revision;
    };
  };

  # The hash is the one in locks/lender.txt.
  nkeys = ps:
    ps.buildPythonPackage rec {
      pname = "nkeys";
      version = "0.2.1";
      pyproject = true;
      src = ps.fetchPypi {
        inherit pname version;
        sha256 = "3a201dcd203d8bb05ba2884d441b2c92918b2a537a10d324e73738887dde9da3";
      };
      build-system = [ps.setuptools];
      dependencies = [ps.pynacl];
      pythonImportsCheck = ["nkeys"];
    };

  module = ps: let
    wasm = ps ? wasmtime;
  in
    ps.buildPythonPackage {
      pname = "lender";
      inherit version src;
      pyproject = true;
      build-system = [ps.setuptools];
      pythonRelaxDeps = true;
      # Without it there is no wasm runtime here, which the self-test says.
      pythonRemoveDeps = lib.optional (!wasm) "wasmtime";
      dependencies =
        [
          ps.aiomqtt
          ps.cloudpickle
          ps.cryptography
          ps.msgpack
          ps.nats-py
          (ps.nkeys or (nkeys ps))
          ps.nvidia-ml-py
          ps.psutil
          ps.pydantic
          ps.pydantic-settings
          ps.pynacl
          ps.uvloop
        ]
        ++ lib.optional isLinux ps.jeepney
        ++ lib.optional wasm ps.wasmtime;
      # The walls' own program is brought into roots that have no store: it has to be static.
      buildInputs = lib.optional isLinux stdenv.cc.libc.static;
      postPatch = "patchShebangs .ci/walls";
      postInstall =
        lib.optionalString isLinux ''
          test -x "$out/${ps.python.sitePackages}/lender/sandbox/walls/enter"
        ''
        + lib.optionalString (revision != null) ''
          printf '%s\n' ${lib.escapeShellArg origin} \
            > "$out/${ps.python.sitePackages}/lender-${version}.dist-info/direct_url.json"
        '';
      # They start servers, sandboxes and fleets: `make test`.
      doCheck = false;
      pythonImportsCheck = ["lender.cli.main" "lender.daemon.command" "broker.service.command"];
    };

  environment = python3.withPackages (ps: [(module ps)]);
in
  runCommand "lender-${version}" {
    inherit version;
    pname = "lender";
    passthru = {
      inherit environment module revision;
      python = python3;
    };
    meta = {
      description = "Dev PCs and Raspberry Pis lend what they don't use; their owners stay sovereign";
      mainProgram = "lender";
      platforms = lib.platforms.linux ++ lib.platforms.darwin;
    };
  } ''
    mkdir -p "$out/bin"
    for program in ${toString programs}; do
      test -x "${environment}/bin/$program"
      ln -s "${environment}/bin/$program" "$out/bin/$program"
    done
  ''
