import type { Arch } from '../host/arch.ts'
import { judgeNesting, nestingScript, type Refusal, seeScript } from './arm64-nesting.ts'
import type { InnermostEngine } from './capability.ts'

export type Accel = 'kvm' | 'tcg'

/** All that is particular to a guest architecture. Nothing outside this table may know it. */
export interface Architecture {
  /** `-machine`; emulation and KVM offer different timers. `nested` is whether the guest is to be a hypervisor. */
  machine(accel: Accel, nested: boolean): string
  firmware: string | undefined
  /** `-cpu`; a guest that is no hypervisor sees no virtualization extension. */
  cpu(accel: Accel, nested: boolean): string
  /** Kernel arguments. `console` shows what goes wrong before user space runs. */
  kernelArguments: string
  /** Added for a hypervisor. */
  hypervisorArguments: string
  console: string
  /** How the kernel resets its machine, which ends the engine, and what else differs from one to the other. */
  engineArguments: Record<InnermostEngine, string>
  /** The early console of Firecracker, where it is another one. */
  firecrackerConsole?: string
  /** What Firecracker hides from a guest that is no hypervisor, as the API's CPU configuration. */
  firecrackerHides?: object
  /** Tells an emulated guest the rate of its clock, in kHz, where it does not know. */
  emulatedClock?(khz: number): string
  /** The bus that the machine's virtio devices sit on: the suffix of QEMU's device names. */
  virtio: string
  /** Where a guest comes up with one processor: a script for it that turns on the others. */
  lateProcessors?: string
  /**
   * A script for a guest: prints its virtualization extension, whom it says it runs under, then what its log proves, and
   * lines `MODULE.PARAMETER=VALUE` of its KVM.
   */
  see: string
  /** Tells why a guest that was to be a hypervisor is none, by what a script prints there. */
  nesting?: { script: string; judge(output: string): Refusal | undefined }
  /** As the manuals start it: what a benchmark compares with. */
  plain: { machine(nested: boolean): string; console: string }
  /** Names the place of the device with this number, where QEMU would not give them places in their order. */
  place?(index: number): string
}

/**
 * Emulated, a nested guest's tick takes about as long as the time between two of them, so that processors which have
 * nothing else to do hold up the one that boots the guests inside. Linux gives one 5 s to come up (__cpu_up in
 * arch/arm64/kernel/smp.c), which is not always enough at level 3.
 */
const lateProcessors = `failed=0
for cpu in /sys/devices/system/cpu/cpu[1-9]*; do
  for try in 1 2 3 4 5; do
    read -r online < $cpu/online
    [ "$online" = 1 ] && continue 2
    echo 1 > $cpu/online
  done 2> /dev/null
  read -r online < $cpu/online
  [ "$online" = 1 ] || failed=1
done
exit $failed`

export const architectures: Record<Arch, Architecture> = {
  x86_64: {
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
     * add_rtc_cmos probes a clock that the machine does not have: seconds of port exits. serial8250_init and i8042_init
     * probe devices that no program here uses. cryptomgr.notests leaves out self-tests, all but that of crypto_kdf108_init,
     * which takes 150 ms emulated. init_on_alloc=0: nobody clears a guest's memory against its own bugs here.
     * noreplace-smp: a guest with one processor would rewrite 9,000 lock prefixes, each with a change of address space.
     * lsm=: AppArmor and Tomoyo take 60 ms, and look at each path.
     */
    kernelArguments:
      'panic=-1 tsc=reliable no_timer_check nowatchdog cryptomgr.notests mitigations=off init_on_alloc=0 ' +
      'noreplace-smp lsm= ' +
      'initcall_blacklist=add_rtc_cmos,serial8250_init,i8042_init,crypto_kdf108_init',
    hypervisorArguments: '',
    console: 'earlycon=uart8250,io,0x3f8,115200 keep_bootcon',
    /*
     * QEMU's machine has no keyboard controller, which would be asked 655,360 times: a panic resets by a triple fault.
     * Firecracker takes that for an error, and has a keyboard controller for just this.
     */
    engineArguments: { qemu: 'reboot=t', firecracker: 'reboot=k' },
    // It shows a guest all that KVM offers: vmx is bit 5 of leaf 1's ecx, svm bit 2 of leaf 0x80000001's.
    firecrackerHides: {
      cpuid_modifiers: [
        { leaf: '0x1', subleaf: '0x0', flags: 0, modifiers: [{ register: 'ecx', bitmap: zeroBit(5) }] },
        { leaf: '0x80000001', subleaf: '0x0', flags: 0, modifiers: [{ register: 'ecx', bitmap: zeroBit(2) }] },
      ],
    },
    emulatedClock: (khz) => `tsc_early_khz=${khz}`,
    virtio: 'device',
    /*
     * The module cpuid gives each processor a file whose positions are leaves; 16 bytes are eax, ebx, ecx, edx. That leaf
     * means something only where CPUID says that there is a hypervisor.
     */
    see: `flags=$(grep -m 1 '^flags' /proc/cpuinfo)
case "$flags " in *' vmx '*) echo vmx ;; *' svm '*) echo svm ;; *) echo ;; esac
case "$flags " in *' hypervisor '*)
  [ -e /dev/cpu/0/cpuid ] || modprobe cpuid 2>/dev/null
  dd if=/dev/cpu/0/cpuid bs=16 count=1 skip=67108864 2>/dev/null | tail -c 12 | tr -d '\\0' ;;
esac
echo
cd /sys/module && for module in kvm_intel kvm_amd; do
  for name in nested ept npt enable_shadow_vmcs; do
    read -r value < $module/parameters/$name && echo "$module.$name=$value"
  done
done 2>/dev/null
true`,
    plain: { machine: () => 'q35', console: 'ttyS0' },
  },
  arm64: {
    machine: (_, nested) => virt(nested),
    firmware: undefined,
    /*
     * With FEAT_NV2, as `max`, but without what is emulated at a high price: PAC, which takes a third of the time, and
     * the fifth level of page tables (LPA2). It also stays the same from one QEMU to the next.
     */
    cpu: (accel) => (accel === 'kvm' ? 'host' : 'neoverse-n2,pauth=off'),
    /*
     * As on x86. gen_pci_driver_init scans a PCI bus without devices, pl011_init sets up the serial port, which only the
     * early console uses: 200 exits of 1,600. load_system_certificate_list checks a certificate: 120 ms emulated.
     * rcu_expedited: a wait for RCU during the boot is one for the next tick otherwise. maxcpus: see lateProcessors.
     */
    kernelArguments:
      'panic=-1 nowatchdog cryptomgr.notests mitigations=off init_on_alloc=0 rcupdate.rcu_expedited=1 maxcpus=1 lsm= ' +
      'initcall_blacklist=gen_pci_driver_init,pl011_init,pl061_gpio_driver_init,serial8250_init,' +
      'load_system_certificate_list,crypto_kdf108_init',
    hypervisorArguments: 'kvm-arm.mode=nested',
    console: 'earlycon=pl011,0x9000000 keep_bootcon',
    engineArguments: { qemu: '', firecracker: '' },
    // It has a serial port only where a console is asked for, and adds the early console then (its device_manager/mod.rs).
    firecrackerConsole: 'console=ttyS0 keep_bootcon',
    virtio: 'device',
    lateProcessors,
    see: seeScript,
    nesting: { script: nestingScript, judge: judgeNesting },
    plain: { machine: virt, console: 'ttyAMA0' },
    // The first device would get the last of the transports, which Linux finds in their order.
    place: (index) => `bus=virtio-mmio-bus.${index}`,
  },
}

/** A guest that is given EL2 has PSCI by SMC, others by HVC: QEMU says in the device tree which. */
function virt(nested: boolean): string {
  return `virt,gic-version=3,virtualization=${nested ? 'on' : 'off'}`
}

/** Of 32 bits this one is to be 0, and the others as they are. */
function zeroBit(bit: number): string {
  return `0b${'x'.repeat(31 - bit)}0${'x'.repeat(bit)}`
}
