import { randomUUID } from 'node:crypto'
import { mkdir, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Bundle } from '../bundle/bundle.ts'
import { checkCapabilities, type EngineName } from '../engine/capability.ts'
import { hotplugArguments, hotplugNames, type QemuDisk } from '../engine/qemu/argv.ts'
import type { Qmp } from '../engine/qemu/qmp.ts'
import { contentPaths } from '../image/paths.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { machinePaths, statePaths } from '../store/paths.ts'
import { explainWriteError } from '../store/write.ts'
import type { Context } from './context.ts'
import { openQmp } from './forward.ts'
import { answerLimitMs } from './plan.ts'
import { type GuestRecord, loadRecord, saveRecord } from './record.ts'

/** A file of the host that guests see as a disk, whatever their level: each hands its own device on. */
export interface HostDisk {
  /** Tells it from others: a digest, or a path. */
  content: string
  path: string
  readOnly: boolean
}

/** The guest-hypervisor layer, by which a guest can start others: its first disk. */
export function layerDisk(bundle: Bundle): HostDisk {
  return { content: 'layer', path: bundle.guest.hypervisorLayer, readOnly: true }
}

/** Whether a record's `content` names an image, rather than the layer of guest hypervisors or a file. */
export function isImage(content: string): boolean {
  return content !== 'layer' && !content.startsWith('/')
}

/** The disk of this host that a record's `content` names. */
export function hostDisk(content: string, bundle: Bundle): HostDisk {
  if (isImage(content)) return { content, path: contentPaths(content).squashfs, readOnly: true }
  return content === 'layer' ? layerDisk(bundle) : { content, path: content, readOnly: false }
}

/** The device that a guest's disk of this number gets, for disks that it has from its start: on Bochs they are CD-ROMs. */
export function diskDevice(index: number, engine: EngineName): string {
  if (engine === 'bochs') return `/dev/sr${index}`
  return `/dev/vd${String.fromCharCode('a'.charCodeAt(0) + index)}`
}

/** The same, without attaching anything, for a machine that may not be there yet. */
export function plannedDisk(disk: HostDisk, hypervisor: GuestRecord | undefined): QemuDisk {
  const { content, readOnly } = disk
  if (!hypervisor) return ofHost(disk)
  const device = hypervisor.disks.find((other) => other.content === content)?.device ?? '/dev/sd?'
  return { path: device, readOnly, device: true }
}

/** Whether a guest on QEMU has a disk from its start; others were attached to it later. */
export function fromStart({ device }: GuestRecord['disks'][number]): boolean {
  return device.startsWith('/dev/vd')
}

/** Attaches a disk as the bus's unit number `lun`. Throws `QMP_ERROR`. */
export async function plug(qmp: Qmp, disk: QemuDisk, lun: number): Promise<void> {
  const { blockdev, device } = hotplugArguments(disk, lun)
  await qmp.execute('blockdev-add', blockdev)
  await qmp.execute('device_add', device)
}

/** In a guest that is the host of others the layer is a device. */
function ofHost({ path, readOnly }: HostDisk): QemuDisk {
  return { path, readOnly, device: path.startsWith('/dev/') }
}

/** An empty file system in a file that takes only as much space as is written to it. */
export async function makeScratch({ host, signal }: Context, bundle: Bundle, sizeMiB: number): Promise<string> {
  const dir = statePaths().disks
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const path = join(dir, `${randomUUID()}.img`)
  try {
    await writeFile(path, '', { mode: 0o600 })
    await truncate(path, sizeMiB * 2 ** 20)
    const options = ['-t', 'ext4', '-q', '-F', '-m', '0', '-E', 'lazy_itable_init=1,lazy_journal_init=1']
    await run(host, [...bundle.tools.argv('mke2fs'), ...options, path], { signal, timeoutMs: 60_000 })
    return path
  } catch (error) {
    await rm(path, { force: true })
    throw explainWriteError(error, path)
  }
}

/** Without its holes, and where the file system can, without its contents. */
export async function copyDisk({ host, signal }: Context, from: string, to: string): Promise<void> {
  await run(host, ['cp', '--sparse=always', '--reflink=auto', '--', from, to], { signal })
}

/** The disk as the machine sees it that the next guest's engine runs on; attached to a guest that lacks it. */
export async function diskFor(
  context: Context,
  disk: HostDisk,
  hypervisor: GuestRecord | undefined,
): Promise<QemuDisk> {
  if (!hypervisor) return ofHost(disk)
  return { path: await deviceIn(context, disk, hypervisor), readOnly: disk.readOnly, device: true }
}

async function deviceIn(context: Context, disk: HostDisk, guest: GuestRecord): Promise<string> {
  const known = guest.disks.find(({ content }) => content === disk.content)
  if (known) return known.device
  return withLock(`${machinePaths(guest.id).dir}/disks.lock`, () => attach(context, disk, guest), {
    timeoutMs: answerLimitMs(guest.level),
    signal: context.signal,
  })
}

/** Through all levels below it first, then to the guest itself, while they run. */
async function attach(context: Context, disk: HostDisk, given: GuestRecord): Promise<string> {
  const guest = (await loadRecord(given.id)) ?? given
  const known = guest.disks.find(({ content }) => content === disk.content)
  if (known) return known.device
  const parent = guest.parent === undefined ? undefined : await loadRecord(guest.parent)
  checkCapabilities(guest.engine, ['hotplug'], guest.path)
  const lun = guest.disks.length + 1
  const { blockdev, device } = hotplugArguments(await diskFor(context, disk, parent), lun)
  await using qmp = await openQmp(context, guest)
  await qmp.execute('blockdev-add', blockdev).catch(async () => {
    await detach(context, guest, qmp, lun)
    await qmp.execute('blockdev-add', blockdev)
  })
  await qmp.execute('device_add', device)
  const path = await scan(context, guest, lun)
  guest.disks.push({ content: disk.content, device: path })
  given.disks = guest.disks
  await saveRecord(guest)
  return path
}

/** Takes off what an attempt that was broken off has left under this number: the record knows of no such disk. */
async function detach(context: Context, guest: GuestRecord, qmp: Qmp, lun: number): Promise<void> {
  const { node, id } = hotplugNames(lun)
  await qmp.execute('device_del', { id }).catch(() => {})
  await qmp.execute('blockdev-del', { 'node-name': node }).catch(() => {})
  const script = 'file=/sys/class/scsi_device/0:0:0:$1/device/delete; [ ! -e $file ] || echo 1 > $file'
  await run(await context.guest(guest), ['sh', '-c', script, 'sh', String(lun)], {
    timeoutMs: answerLimitMs(guest.level),
    signal: context.signal,
  })
}

/** A bus of 256 targets is not searched: only the one unit is looked for. */
const scanScript = `lun=$1
modprobe scsi_mod scan=manual && modprobe -a virtio_scsi sd_mod || exit 1
n=0
while [ $n -lt 500 ]; do
  [ $((n % 50)) = 0 ] && echo "0 0 $lun" > /sys/class/scsi_host/host0/scan
  for disk in /sys/class/scsi_device/0:0:0:$lun/device/block/*; do
    [ -b /dev/\${disk##*/} ] && { echo /dev/\${disk##*/}; exit; }
  done
  n=$((n + 1)); usleep 20000
done
exit 1`

async function scan(context: Context, guest: GuestRecord, lun: number): Promise<string> {
  const machine = await context.guest(guest)
  const { stdout, stderr, exit } = await run(machine, ['sh', '-c', scanScript, 'sh', String(lun)], {
    timeoutMs: answerLimitMs(guest.level),
    signal: context.signal,
    allowFailure: true,
  })
  if (exit.code === 0) return stdout.trim()
  throw new NestvmError('DISK_FAILED', `${guest.path} does not see a disk that was attached to it: ${stderr.trim()}`)
}
