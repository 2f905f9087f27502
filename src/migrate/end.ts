import type { Bundle } from '../bundle/bundle.ts'
import { counterKhz } from '../host/clock.ts'
import type { Context } from '../stack/context.ts'
import { type HostDisk, hostDisk, isImage } from '../stack/disk.ts'
import { type Host, isHost } from '../stack/host.ts'
import { guestPlace, hostPlace, type Place } from '../stack/place.ts'
import { type GuestRecord, loadRecord, runningRecord } from '../stack/record.ts'
import { NestvmError } from '../store/error.ts'

/** Brings a host what guests need there. Returns paths of that host. */
export interface Supplies {
  bundle(host: Host): Promise<Bundle>
  /** An image's squashfs, by the image's digest. */
  image(digest: string, host: Host): Promise<string>
}

/** One end of a move: what the guest's engine runs on. */
export interface End {
  /** As a record's `moving` has it; see runsOn. */
  id: string
  /** For people. */
  name: string
  host: Host
  /** Absent where it is the host itself. */
  hypervisor?: GuestRecord
  /** Of guests that run on it. */
  level: number
  place: Place
  /** The host's. */
  bundle: Bundle
}

/** The end that `--to` names: a running guest by its path, or a host. Throws what `runningRecord` and `hostNamed` throw. */
export async function endNamed(context: Context, supplies: Supplies, name: string): Promise<End> {
  return isHost(name) ? hostEnd(context, supplies, name) : guestEnd(context, supplies, await runningRecord(name))
}

/** Where a guest is now. */
export async function endOf(context: Context, supplies: Supplies, guest: GuestRecord): Promise<End> {
  if (guest.parent === undefined) return hostEnd(context, supplies, guest.host)
  const hypervisor = await loadRecord(guest.parent)
  if (!hypervisor) throw new NestvmError('NO_SUCH_MACHINE', `the machine that ${guest.path} runs in is gone`)
  return guestEnd(context, supplies, hypervisor)
}

async function hostEnd(context: Context, supplies: Supplies, name: string): Promise<End> {
  const host = await context.hostNamed(name)
  const bundle = await supplies.bundle(host)
  const place = hostPlace(host.machine, bundle, await counterKhz(host.machine))
  return { id: name, name, host, level: 1, place, bundle }
}

async function guestEnd(context: Context, supplies: Supplies, hypervisor: GuestRecord): Promise<End> {
  const host = await context.hostNamed(hypervisor.host)
  const bundle = await supplies.bundle(host)
  const place = guestPlace(await context.guest(hypervisor), bundle)
  return { id: hypervisor.id, name: hypervisor.path, host, hypervisor, level: hypervisor.level + 1, place, bundle }
}

/** What a record's `content` names, on an end's host: brought there where it is not yet. */
export async function diskOn({ host, bundle }: End, supplies: Supplies, content: string): Promise<HostDisk> {
  const named = hostDisk(content, bundle, host)
  return isImage(content) ? { ...named, path: await supplies.image(content, host) } : named
}
