# A Raspberry Pi that nobody logs in to: what `lender doctor` would ask for is switched on.
{lib, ...}: {
  imports = [./default.nix];

  # The firmware adds cgroup_disable=memory, and its kernels have PSI built in and off.
  boot.kernelParams = ["cgroup_enable=memory" "cgroup_memory=1" "psi=1"];
  # It has no clock of its own, and grants and certificates end.
  services.timesyncd.enable = lib.mkDefault true;

  services.lender = {
    enable = lib.mkDefault true;
    # Nobody sits at it, so nobody is to be stepped back for.
    settings.policy.defaults = lib.mkDefault "dedicated";
  };
}
