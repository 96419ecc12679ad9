# Below Windows, with NixOS-WSL, whose module comes beside this one.
{
  config,
  lib,
  ...
}: {
  imports = [./default.nix];

  assertions = [
    {
      assertion = config.wsl.enable or false;
      message = "lender's module for WSL goes with nixos-wsl.nixosModules.default and wsl.enable = true";
    }
  ];
  services.lender = {
    enable = lib.mkDefault true;
    # It may end at any moment, and Windows does not tell it whether somebody is there.
    settings.labels = lib.mkDefault ["wsl"];
  };
}
