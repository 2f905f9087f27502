import type { Facts } from '../facts/schema.ts'
import type { Mend } from './finding.ts'

/**
 * How a parameter of a module is changed that cannot be written while it runs: by loading it again, which takes that
 * no VM runs; where it is built in, by the kernel's arguments.
 */
export function setParameter({ kvm }: Facts, module: string, setting: string): Mend {
  const { builtIn, users } = kvm.modules[module] ?? { builtIn: false, users: 0 }
  if (builtIn) {
    return { lasting: bootArgument(`${module}.${setting}`), advice: 'it is built into the kernel: this takes a reboot' }
  }
  const running = Math.max(users, kvm.runningVms)
  return {
    now: [`sudo modprobe -r ${module}`, `sudo modprobe ${module} ${setting}`],
    lasting: [`echo 'options ${module} ${setting}' | sudo tee -a /etc/modprobe.d/${module.replaceAll('_', '-')}.conf`],
    advice:
      running > 0 ? 'virtual machines run on it now: end them first, or the module cannot be unloaded' : undefined,
  }
}

/** Debian's and Ubuntu's way; others have grubby. */
export function bootArgument(argument: string): string[] {
  return [
    `sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&${argument} /' /etc/default/grub`,
    `sudo update-grub   # Fedora, RHEL: sudo grubby --update-kernel=ALL --args='${argument}'`,
    'sudo reboot',
  ]
}
