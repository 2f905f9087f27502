import type { QemuDisk } from '../qemu/argv.ts'
import { geometry } from './boot-disk.ts'
import { switchSocket } from './files.ts'

/**
 * Instructions per second of the guest's clock. More than any host emulates: what is done by the clock, above all the
 * ticks of the guests inside, is then rare, while a guest that waits is not slowed down by it. With 100 million, L2
 * takes twice as long to start, with 1000 million as long as with these.
 */
const instructionsPerSecond = 300_000_000

/** What Bochs' configuration file says. Paths are of the machine that it runs on. */
export interface BochsConfiguration {
  /** The directory with BIOS-bochs-latest and VGABIOS-lgpl-latest. */
  firmware: string
  memoryMiB: number
  bootDisk: string
  cylinders: number
  /** CD-ROMs, in the order in which the guest sees them: at most three. */
  disks: readonly QemuDisk[]
  mac: string
  /** Takes what the guest's kernel says. */
  kernelLog: string
}

/**
 * The configuration file (bochsrc(5)). Everything that stops Bochs ends it, since nobody is there to answer: so does a
 * triple fault, by which a kernel that panics resets its machine. The clock is the guest's own, and never faster than
 * the host's.
 */
export function configuration(given: BochsConfiguration): string {
  const { firmware, memoryMiB, bootDisk, cylinders, disks, mac, kernelLog } = given
  const cpu = `model=${processor}, count=1, ips=${instructionsPerSecond}, reset_on_triple_fault=0, ignore_bad_msrs=1`
  return [
    `memory: guest=${memoryMiB}, host=${memoryMiB}`,
    `cpu: ${cpu}`,
    `romimage: file="${firmware}/BIOS-bochs-latest"`,
    `vgaromimage: file="${firmware}/VGABIOS-lgpl-latest"`,
    'pci: enabled=1, chipset=i440fx, slot1=e1000',
    'ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14',
    'ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15',
    `ata0-master: type=disk, mode=flat, path="${bootDisk}", ${geometryOf(cylinders)}`,
    ...disks.map(({ path }, index) => `${places[index]}: type=cdrom, path="${path}", status=inserted`),
    'boot: disk',
    `com1: enabled=1, mode=file, dev="${kernelLog}"`,
    `e1000: enabled=1, mac=${mac}, ethmod=vde, ethdev=${switchSocket}, script=none`,
    'clock: sync=slowdown, time0=utc',
    'display_library: term',
    'speaker: enabled=0',
    'sound: driver=dummy',
    'log: -',
    ...['panic: action=fatal', 'error: action=ignore', 'info: action=ignore', 'debug: action=ignore'],
    '',
  ].join('\n')
}

/** With VMX, EPT and VMCS shadowing. Of the newer ones tigerlake was seen to hang in Linux' start. */
const processor = 'corei7_haswell_4770'

const places = ['ata0-slave', 'ata1-master', 'ata1-slave']

function geometryOf(cylinders: number): string {
  return `cylinders=${cylinders}, heads=${geometry.heads}, spt=${geometry.sectors}`
}

/**
 * See the x86 table of src/engine/architecture.ts; here there is firmware, with a clock, a keyboard controller and
 * serial ports. The rate of the clock and what is counted in a jiffy, of which Debian's kernel has 250 a second, would be
 * measured otherwise.
 */
export const bochsKernelArguments = [
  'quiet console=ttyS0 panic=-1 reboot=t nokaslr mitigations=off tsc=reliable no_timer_check nowatchdog',
  'cryptomgr.notests init_on_alloc=0 lsm= initcall_blacklist=crypto_kdf108_init',
  `tsc_early_khz=${instructionsPerSecond / 1000} lpj=${instructionsPerSecond / 250}`,
].join(' ')
