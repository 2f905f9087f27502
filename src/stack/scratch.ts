import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import type { Bundle } from '../bundle/bundle.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { saysFull } from '../store/write.ts'
import type { Context } from './context.ts'
import { type Host, isHost } from './host.ts'
import { type GuestRecord, listRecords } from './record.ts'

// What containers write with `--disk`: each a file of the host that the guest's level 1 guest runs on, by a name that
// stays when it moves to another one.

type Disks = Pick<Host, 'disksDir'>

const kind = 'disk:'

/** The `content` of a disk that is to be made. */
export function newScratch(): string {
  return `${kind}${randomUUID()}`
}

/** Whether a record's `content` names one of these. */
export function isScratch(content: string): boolean {
  return content.startsWith(kind)
}

/** Where it is on a host. */
export function scratchPath({ disksDir }: Disks, content: string): string {
  return join(disksDir, `${content.slice(kind.length)}.img`)
}

/** Those that a guest has, or hands on. */
export function scratchesOf({ disks }: Pick<GuestRecord, 'disks'>): string[] {
  return disks.map(({ content }) => content).filter(isScratch)
}

/** An empty file system in a file that takes only as much space as is written to it. Throws `NO_SPACE`. */
export async function makeScratch(
  host: Host,
  { tools }: Pick<Bundle, 'tools'>,
  { content, sizeMiB }: { content: string; sizeMiB: number },
  signal: AbortSignal,
): Promise<void> {
  await makeEmpty(host, content, sizeMiB * 2 ** 20, signal)
  const options = ['-t', 'ext4', '-q', '-F', '-m', '0', '-E', 'lazy_itable_init=1,lazy_journal_init=1']
  const path = scratchPath(host, content)
  await run(host.machine, [...tools.argv('mke2fs'), ...options, path], { signal, timeoutMs: 60_000 })
}

/** A file of so many bytes that holds nothing. Throws `NO_SPACE`. */
export async function makeEmpty(host: Host, content: string, bytes: number, signal: AbortSignal): Promise<void> {
  const argv = ['sh', '-c', emptyScript, 'sh', host.disksDir, scratchPath(host, content), String(bytes)]
  const { stderr, exit } = await run(host.machine, argv, {
    ...{ signal, timeoutMs: 60_000, allowFailure: true },
    env: { LC_ALL: 'C' },
  })
  if (exit.code === 0) return
  const full = saysFull(stderr)
  throw new NestvmError(full ? 'NO_SPACE' : 'DISK_FAILED', `no disk can be made on ${host.name}: ${stderr.trim()}`, {
    hint: full ? 'nestvm prune' : undefined,
  })
}

const emptyScript = 'umask 077; mkdir -p "$1" && : > "$2" && truncate -s "$3" "$2"'

/** Removes these disks of a host. Throws when that cannot be reached. */
export async function removeScratches(context: Context, hostName: string, contents: readonly string[]): Promise<void> {
  if (contents.length === 0 || !isHost(hostName)) return
  const host = await context.hostNamed(hostName)
  const paths = contents.map((content) => scratchPath(host, content))
  await run(host.machine, ['rm', '-f', '--', ...paths], { timeoutMs: 30_000 })
}

/** Those of guests that are to go; what was handed on to one that has moved away stays. */
export async function scratchesToGo(going: readonly GuestRecord[]): Promise<string[]> {
  const ids = new Set(going.map(({ id }) => id))
  const staying = (await listRecords()).filter(({ id }) => !ids.has(id))
  const kept = new Set(staying.flatMap(({ scratch }) => scratch ?? []))
  return [...new Set(going.flatMap(scratchesOf))].filter((content) => !kept.has(content))
}

/** Without its holes, and where the file system can, without its contents. */
export async function copyDisk({ host, signal }: Context, from: string, to: string): Promise<void> {
  await run(host, ['cp', '--sparse=always', '--reflink=auto', '--', from, to], { signal })
}
