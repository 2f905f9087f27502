import { setTimeout as sleep } from 'node:timers/promises'
import type { Bundle } from '../bundle/bundle.ts'
import { checkCapabilities, type EngineName } from '../engine/capability.ts'
import { hotplugArguments, hotplugNames, type QemuDisk } from '../engine/qemu/argv.ts'
import type { Qmp } from '../engine/qemu/qmp.ts'
import { contentPaths } from '../image/paths.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { withLock } from '../store/lock.ts'
import { machinePaths } from '../store/paths.ts'
import type { Context } from './context.ts'
import { openQmp } from './forward.ts'
import type { Host } from './host.ts'
import { answerLimitMs } from './plan.ts'
import { changeRecord, type GuestRecord, loadRecord } from './record.ts'
import { isScratch, scratchPath } from './scratch.ts'

/** A file of the host that guests see as a disk, whatever their level: each hands its own device on. */
export interface HostDisk {
  /** Tells it from others: an image's digest, `layer`, or the name of what a container writes (scratch.ts). */
  content: string
  path: string
  readOnly: boolean
}

/** The guest-hypervisor layer, by which a guest can start others: its first disk. */
export function layerDisk(bundle: Bundle): HostDisk {
  return { content: 'layer', path: bundle.guest.hypervisorLayer, readOnly: true }
}

/** Whether a record's `content` names an image, rather than the layer of guest hypervisors or what a container writes. */
export function isImage(content: string): boolean {
  return content !== 'layer' && !isScratch(content)
}

/** The disk of a host that a record's `content` names; an image is that of this host. */
export function hostDisk(content: string, bundle: Bundle, host: Pick<Host, 'disksDir'>): HostDisk {
  if (isImage(content)) return { content, path: contentPaths(content).squashfs, readOnly: true }
  return content === 'layer' ? layerDisk(bundle) : scratchDisk(content, host)
}

export function scratchDisk(content: string, host: Pick<Host, 'disksDir'>): HostDisk {
  return { content, path: scratchPath(host, content), readOnly: false }
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

type Seen = GuestRecord['disks'][number]

/** Whether a guest on QEMU has a disk from its start; others were attached to it later, under their number and 1. */
export function fromStart({ device }: Seen): boolean {
  return device.startsWith('/dev/vd')
}

/** In the place of a disk that was taken off, since a disk is known by its number. */
const nothing: Seen = { content: 'nothing', device: '' }

export function isNothing({ device }: Seen): boolean {
  return device === nothing.device
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
  return withLock(disksLock(guest.id), () => attach(context, disk, guest), {
    timeoutMs: answerLimitMs(guest.level),
    signal: context.signal,
  })
}

function disksLock(id: string): string {
  return `${machinePaths(id).dir}/disks.lock`
}

/** Through all levels below it first, then to the guest itself, while they run. */
async function attach(context: Context, disk: HostDisk, given: GuestRecord): Promise<string> {
  const guest = (await loadRecord(given.id)) ?? given
  const known = guest.disks.find(({ content }) => content === disk.content)
  if (known) return known.device
  const parent = guest.parent === undefined ? undefined : await loadRecord(guest.parent)
  checkCapabilities(guest.engine, ['hotplug'], guest.path)
  const free = guest.disks.findIndex(isNothing)
  const index = free === -1 ? guest.disks.length : free
  const lun = index + 1
  const { blockdev, device } = hotplugArguments(await diskFor(context, disk, parent), lun)
  await using qmp = await openQmp(context, guest)
  await qmp.execute('blockdev-add', blockdev).catch(async () => {
    await detach(context, guest, qmp, lun)
    await qmp.execute('blockdev-add', blockdev)
  })
  try {
    await qmp.execute('device_add', device)
    const path = await scan(context, guest, lun)
    given.disks = await noteDisk(guest.id, index, { content: disk.content, device: path })
    return path
  } catch (error) {
    // The next attempt does it where this one cannot.
    await detach(context.toTheEnd(), guest, qmp, lun).catch(() => {})
    throw error
  }
}

async function noteDisk(id: string, index: number, disk: Seen): Promise<Seen[]> {
  const changed = await changeRecord(id, ({ disks }) => {
    const now = [...disks]
    now[index] = disk
    return { disks: now }
  })
  return changed?.disks ?? []
}

/** Takes disks off guests, outer before inner, that have handed them on to one that has them no more. */
export async function takeOff(
  context: Context,
  hypervisors: readonly GuestRecord[],
  contents: readonly string[],
): Promise<void> {
  for (const { id, level } of hypervisors.toReversed()) {
    const limits = { timeoutMs: answerLimitMs(level), signal: context.signal }
    await withLock(disksLock(id), async () => takeOffOne(context, await loadRecord(id), contents), limits)
  }
}

async function takeOffOne(
  context: Context,
  guest: GuestRecord | undefined,
  contents: readonly string[],
): Promise<void> {
  const attached = guest?.disks.filter((disk) => contents.includes(disk.content) && !fromStart(disk)) ?? []
  if (!guest || attached.length === 0) return
  await using qmp = await openQmp(context, guest)
  for (const disk of attached) {
    const index = guest.disks.indexOf(disk)
    await detach(context, guest, qmp, index + 1)
    await noteDisk(guest.id, index, nothing)
  }
}

/** Whether a guest was given one of these disks while it ran. */
export function wasGiven({ disks }: GuestRecord, contents: readonly string[]): boolean {
  return disks.some((disk) => contents.includes(disk.content) && !fromStart(disk))
}

/** Takes off whatever disk there is under this number; of one that an attempt has left the record knows nothing. */
async function detach(context: Context, guest: GuestRecord, qmp: Qmp, lun: number): Promise<void> {
  const { node, id } = hotplugNames(lun)
  await unlessUnknown(qmp.execute('device_del', { id }))
  // QEMU lets go of it a little later.
  for (let tries = 250; !(await unlessUnknown(qmp.execute('blockdev-del', { 'node-name': node }), tries)); tries--) {
    await sleep(20)
  }
  const script = 'file=/sys/class/scsi_device/0:0:0:$1/device/delete; [ ! -e $file ] || echo 1 > $file'
  await run(await context.guest(guest), ['sh', '-c', script, 'sh', String(lun)], {
    timeoutMs: answerLimitMs(guest.level),
    signal: context.signal,
  })
}

/** Returns whether it is done, or there is nothing to do: QEMU knows no such disk. Throws when no try is left. */
async function unlessUnknown(command: Promise<unknown>, tries = 0): Promise<boolean> {
  try {
    await command
    return true
  } catch (error) {
    if (!(error instanceof NestvmError) || error.code !== 'QMP_ERROR') throw error
    if (/not found|Failed to find/.test(error.message)) return true
    if (tries <= 0) throw error
    return false
  }
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
