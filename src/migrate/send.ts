import { rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { expectGuest, type MigrationLimits, type MigrationProgress, sendGuest } from '../engine/qemu/migration.ts'
import type { Qmp } from '../engine/qemu/qmp.ts'
import { timeLimit, unlessAborted } from '../machine/limit.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { SshMachine } from '../machine/ssh.ts'
import { NestvmError } from '../store/error.ts'

export interface Way {
  /**
   * The machines that the two QEMUs run on, their control connections, and directories for their sockets there; and
   * whether others use the first machine, too.
   */
  from: { machine: Machine; qmp: Qmp; socketDir: string; shared: boolean }
  to: { machine: Machine; qmp: Qmp; socketDir: string }
}

/**
 * From one QEMU to the other through this process, over the connections that it has to both sides: they need not reach
 * each other, and what passes between machines is encrypted. Returns since when the guest has stood still, as
 * `performance.now()` tells time; it does so on both sides then. Throws `MIGRATION_FAILED`.
 */
export async function send(
  { from, to }: Way,
  limits: MigrationLimits & { stallMs: number },
  signal: AbortSignal,
  onProgress: (progress: MigrationProgress) => void,
): Promise<number> {
  const socket = `${to.socketDir}/incoming`
  await expectGuest(to.qmp, `unix:${socket}`)
  const incoming = await to.machine.connect({ unix: socket }, signal)
  const { uri, connection, cancel } = await listenOnce(from, signal)
  try {
    incoming.resume()
    const piped = connection
      .then((outgoing) => pipeline(outgoing, incoming, { signal }))
      .catch((error: unknown) => {
        const why = error instanceof Error ? error.message : error
        throw new NestvmError('MIGRATION_FAILED', `the way to the other side broke: ${why}`, { cause: error })
      })
    // QEMU says what breaks the way too, but may wait long for it; and what cannot be written does not tell of an end.
    const broken = piped.then(() => new Promise<never>(() => {}))
    broken.catch(() => {})
    const sent = sendGuest(from.qmp, uri, limits, onProgress, signal)
    const since = await Promise.race([sent, broken, to.qmp.ended])
    const late = new NestvmError('MIGRATION_FAILED', 'the other side does not take the end of what was sent')
    await unlessAborted(piped, timeLimit(limits.stallMs, late))
    return since
  } finally {
    cancel()
    incoming.destroy()
    connection.then((outgoing) => outgoing.destroy())
  }
}

interface Listening {
  /** What a QEMU there connects to, in its words. */
  uri: string
  connection: Promise<Duplex>
  cancel: () => void
}

/**
 * Waits for one connection: on this host at a socket that only its user can open, else on the machine's loopback, which
 * other users of it can reach, too.
 */
async function listenOnce({ machine, socketDir, shared }: Way['from'], signal: AbortSignal): Promise<Listening> {
  if (machine instanceof SshMachine) {
    const ours = async (port: number) => {
      const argv = ['sh', '-c', ownerScript, 'sh', String(port)]
      return !shared || (await run(machine, argv, { timeoutMs: 30_000, allowFailure: true })).exit.code === 0
    }
    const { port, connection, cancel } = await machine.listenOnce(signal, ours)
    return { uri: `tcp:127.0.0.1:${port}`, connection, cancel }
  }
  const path = `${socketDir}/outgoing`
  // Of a move that was broken off.
  await rm(path, { force: true })
  const server = createServer()
  const connection = new Promise<Duplex>((resolve) => server.once('connection', resolve))
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve))
  return { uri: `unix:${path}`, connection, cancel: () => server.close() }
}

/** Succeeds where the socket with this local port is of the user who asks (proc_pid_net(5): /proc/net/tcp). */
const ownerScript = `cat /proc/net/tcp /proc/net/tcp6 2> /dev/null |
awk -v port="$(printf ':%04X$' "$1")" -v user="$(id -u)" '$2 ~ port && $8 == user { ours = 1 } END { exit !ours }'`
