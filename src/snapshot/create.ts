import { randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Bundle } from '../bundle/bundle.ts'
import { checkCapabilities } from '../engine/capability.ts'
import { saveState } from '../engine/qemu/state.ts'
import { heed } from '../host/rules/heed.ts'
import { emulatedRule, guestKind, nestedStateRule } from '../host/rules/judge.ts'
import { lookAtSide } from '../host/rules/side.ts'
import type { Context } from '../stack/context.ts'
import { qemuSpec } from '../stack/describe.ts'
import { openQmp } from '../stack/forward.ts'
import { freezeNested } from '../stack/freeze.ts'
import { thisHost } from '../stack/host.ts'
import { hostPlace } from '../stack/place.ts'
import { levelLimitMs } from '../stack/plan.ts'
import { descendants, type GuestRecord, listRecords, runningRecord } from '../stack/record.ts'
import { whileStopped } from '../stack/saved.ts'
import { copyDisk, scratchesOf, scratchPath } from '../stack/scratch.ts'
import { NestvmError } from '../store/error.ts'
import { runtimeDir, snapshotFiles } from '../store/paths.ts'
import { explainWriteError, removeTree, temporaryName } from '../store/write.ts'
import { disksOf, resume } from './engine.ts'
import { listSnapshots, type Snapshot, snapshotsDir } from './record.ts'
import { primeAll, publish, settle } from './save.ts'
import { worldOf } from './world.ts'

export interface CreateRequest {
  machine: string
  tag?: string
  /** Also where it is not known that the state of nested guests survives. */
  force: boolean
  onStep?: (text: string) => void
}

/**
 * Saves a running level 1 guest with all that runs in it, its disks included, and lets it run on: it stands still while
 * its memory is written. Throws `NOT_OUTERMOST`, `TAG_TAKEN`, `UNSUPPORTED`, `NESTED_STATE_LOST`, `NO_SPACE` or
 * `SAVE_FAILED`; then nothing is left.
 */
export async function createSnapshot(context: Context, bundle: Bundle, request: CreateRequest): Promise<Snapshot> {
  const { tag } = request
  if (tag !== undefined) await checkTag(tag)
  const guests = await savable(context, bundle, request)
  const [base] = guests
  if (!base) throw new RangeError('nothing to save')
  checkCapabilities(base.engine, ['snapshot'], base.path)
  const world = await worldOf(bundle, base.accel)
  const id = randomBytes(10).toString('hex')
  const dir = temporaryName(join(await snapshotsDir(), id))
  try {
    await mkdir(dir, { mode: 0o700 })
    const primed = await primeAll(context, guests)
    try {
      await saveMemory(context, bundle, base, dir, request)
    } finally {
      await primed.disarm()
    }
    const disks = scratchesOf(base).map((content, index) => ({ content, file: scratchName(index) }))
    const snapshot = await publish({ id, tag, automatic: false, world, guests, dir, disks }, primed.token)
    await settle(snapshot)
    return snapshot
  } catch (error) {
    throw explainWriteError(error, dir)
  } finally {
    await removeTree(dir)
  }
}

async function checkTag(tag: string): Promise<void> {
  if (!/^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$/.test(tag)) {
    throw new NestvmError('BAD_NAME', `${JSON.stringify(tag)} cannot be a tag`, {
      hint: 'use up to 64 small letters, digits, dots and hyphens',
      exitStatus: 2,
    })
  }
  const other = (await listSnapshots()).find(({ snapshot }) => snapshot?.tag === tag)
  if (other)
    throw new NestvmError('TAG_TAKEN', `there is a snapshot ${tag} already`, { hint: `nestvm snapshot rm ${tag}` })
}

/** Of a machine's memory to a slow disk. */
const longestSaveMs = 15 * 60_000

/** The machine and all that runs in it. */
async function savable(context: Context, bundle: Bundle, { machine, force }: CreateRequest): Promise<GuestRecord[]> {
  const base = await runningRecord(machine)
  const records = await listRecords()
  if (base.parent !== undefined) {
    const outermost = records.find(({ id }) => id === base.base)?.path ?? machine.split('/')[0]
    throw new NestvmError(
      'NOT_OUTERMOST',
      `${machine} runs in another guest: a snapshot holds a level 1 guest with all in it`,
      {
        hint: `nestvm snapshot create ${outermost}`,
      },
    )
  }
  const refuse = (why: string) =>
    new NestvmError('UNSUPPORTED', `${machine} cannot be saved: ${why}`, { exitStatus: 2 })
  if (base.host !== thisHost) throw refuse('it does not run on this host')
  if (base.network === 'bridged') throw refuse('its copies would have its address on the bridge')
  const inner = descendants(base, records)
  const starting = inner.find(({ phase }) => phase === 'starting')
  if (starting) throw new NestvmError('NOT_RUNNING', `${starting.path} is starting`, { hint: 'wait until it runs' })
  const live = inner.filter(({ phase }) => phase === 'running')
  await checkNestedState(context, bundle, base, live, force)
  return [base, ...live]
}

async function checkNestedState(
  context: Context,
  bundle: Bundle,
  base: GuestRecord,
  live: readonly GuestRecord[],
  force: boolean,
): Promise<void> {
  const guest = guestKind(base.nested, live.length)
  const intent = {
    what: `${base.path} cannot be saved`,
    force,
    forceCommand: `nestvm snapshot create --force ${base.path}`,
  }
  if (base.accel === 'tcg') return heed(emulatedRule(base.arch, guest), intent)
  const side = await lookAtSide(context.host, bundle.tools.qemuArgv(), { timeoutMs: 30_000, signal: context.signal })
  heed(nestedStateRule({ ...side, accel: 'kvm', guest }), {
    ...{ ...intent, seen: `Linux ${side.kernel}, QEMU ${side.qemu}` },
    command: live.length > 0 ? `nestvm stop ${live.map(({ path }) => path).join(' ')}` : undefined,
  })
}

/**
 * The machine's own memory may be anywhere; what guests are to share is a file that holds nothing else. So a second QEMU
 * takes all of it from a stream into such a file, while the machine runs on. That it can is a test, too.
 */
async function saveMemory(
  context: Context,
  bundle: Bundle,
  base: GuestRecord,
  dir: string,
  { onStep }: CreateRequest,
): Promise<void> {
  const stream = join(dir, 'stream')
  onStep?.(`saving ${base.path}`)
  await writeStream(context, base, dir, stream)
  onStep?.(`checking the snapshot of ${base.path}`)
  await convert(context, bundle, base, dir, stream)
  await removeTree(stream)
}

async function writeStream(context: Context, base: GuestRecord, dir: string, stream: string): Promise<void> {
  await using _frozen =
    base.accel === 'tcg'
      ? await freezeNested(await context.guest(base), levelLimitMs(base.level, base.accel), context.signal)
      : undefined
  await whileStopped(context, base, async () => {
    await using qmp = await openQmp(context, base, { wholeMs: longestSaveMs })
    await qmp.execute('stop')
    await saveState(qmp, stream, 'within', context.signal)
    const host = await context.hostNamed(base.host)
    for (const [index, content] of scratchesOf(base).entries())
      await copyDisk(context, scratchPath(host, content), join(dir, scratchName(index)))
  })
}

/** From a stream with the memory in it to a state and a file of memory. */
async function convert(
  context: Context,
  bundle: Bundle,
  base: GuestRecord,
  dir: string,
  stream: string,
): Promise<void> {
  const { ram, state } = snapshotFiles(dir)
  // Whoever comes after kill -9 removes it by its name.
  const sockets = temporaryName(join(runtimeDir(), 'c'))
  await removeTree(ram)
  try {
    const { first, attached } = await disksOf(base, bundle, await context.hostNamed(base.host))
    const record = { ...base, engineDir: dir, socketDir: sockets, sshSocket: join(sockets, 's') }
    const spec = {
      ...qemuSpec(record, hostPlace(undefined, bundle, undefined), false, first, { path: ram, shared: true }),
      restored: true,
    }
    const saved = { path: stream, memory: 'within' } as const
    const { launched, qmp } = await resume(context, bundle, spec, attached, saved, context.signal)
    try {
      await saveState(qmp, state, 'apart', context.signal)
    } finally {
      launched.process.kill('SIGKILL')
      await launched.process.exited
    }
    for (const file of Object.values(spec.files)) if (file.startsWith(`${dir}/`)) await removeTree(file)
  } finally {
    await removeTree(sockets)
  }
}

function scratchName(index: number): string {
  return `disk${index}`
}
