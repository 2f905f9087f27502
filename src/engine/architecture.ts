import { NestvmError } from '../store/error.ts'

export type Arch = 'x86_64'
export type Accel = 'kvm' | 'tcg'

/** All that is particular to a guest architecture. Nothing outside this table may know it. */
export interface Architecture {
  /** QEMU's program for it. */
  qemu: string
  /** `-machine`; emulation and KVM offer different timers. */
  machine(accel: Accel): string
  firmware: string | undefined
  /** `-cpu`; `nested` is whether the guest is to see a virtualization extension. */
  cpu(accel: Accel, nested: boolean): string
  /** Kernel arguments. `console` shows what goes wrong before user space runs. */
  kernelArguments: string
  console: string
  /** Tells an emulated guest the rate of its clock, in kHz. */
  emulatedClock(khz: number): string
  /** The bus that the machine's virtio devices sit on: the suffix of QEMU's device names. */
  virtio: string
}

export const architectures: Record<Arch, Architecture> = {
  x86_64: {
    qemu: 'qemu-system-x86_64',
    /*
     * microvm has no PCI to scan and qboot no menus to wait for: a boot of 19,000 port exits becomes one of 500.
     * Under KVM a guest has the TSC deadline timer and needs neither of the old timers and interrupt controllers;
     * under TCG it has none, and the kernel calibrates its local APIC against the PIT.
     */
    machine: (accel) => (accel === 'kvm' ? 'microvm,rtc=off,pit=off,pic=off,usb=off' : 'microvm,rtc=on,usb=off'),
    firmware: 'qboot.rom',
    // An emulator repeats a `rep movsb` byte by byte; without ERMS, memory is copied in loops over whole words.
    cpu: (accel, nested) => {
      const model = accel === 'kvm' ? 'host' : 'max,erms=off,fsrm=off'
      return nested ? model : `${model},svm=off,vmx=off`
    },
    /*
     * reboot=t: a panic resets by a triple fault. A keyboard controller, which is not there, would be asked 655,360 times.
     * add_rtc_cmos probes a clock that the machine does not have: seconds of port exits. serial8250_init and i8042_init
     * probe devices that no program here uses. cryptomgr.notests leaves out self-tests, all but that of crypto_kdf108_init,
     * which takes 150 ms emulated. init_on_alloc=0: nobody clears a guest's memory against its own bugs here.
     * noreplace-smp: a guest with one processor would rewrite 9,000 lock prefixes, each with a change of address space.
     * lsm=: AppArmor and Tomoyo take 60 ms, and look at each path.
     */
    kernelArguments:
      'panic=-1 reboot=t tsc=reliable no_timer_check nowatchdog cryptomgr.notests mitigations=off init_on_alloc=0 ' +
      'noreplace-smp lsm= ' +
      'initcall_blacklist=add_rtc_cmos,serial8250_init,i8042_init,crypto_kdf108_init',
    console: 'earlycon=uart8250,io,0x3f8,115200 keep_bootcon',
    emulatedClock: (khz) => `tsc_early_khz=${khz}`,
    virtio: 'device',
  },
}

/** The architecture of this process's host. Throws `UNSUPPORTED_ARCH`. */
export function hostArch(): Arch {
  const name = process.arch === 'x64' ? 'x86_64' : process.arch
  if (name === 'x86_64') return name
  throw new NestvmError('UNSUPPORTED_ARCH', `nestvm does not run on ${name} yet`, { details: { arch: name } })
}
