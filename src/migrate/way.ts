import { rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { Duplex } from 'node:stream'
import type { NbdServer } from '../engine/qemu/mirror.ts'
import type { Qmp } from '../engine/qemu/qmp.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { SshMachine } from '../machine/ssh.ts'

/**
 * From one QEMU to the other through this process, over the connections that it has to both sides: they need not reach
 * each other, and what passes between machines is encrypted.
 */
export interface Way {
  /**
   * The machines that the two QEMUs run on, their control connections, and directories for their sockets there; and
   * whether others use the first machine, too.
   */
  from: { machine: Machine; qmp: Qmp; socketDir: string; shared: boolean }
  to: { machine: Machine; qmp: Qmp; socketDir: string }
}

interface Listening {
  /** Where a QEMU there connects to. */
  address: NbdServer
  connection: Promise<Duplex>
  cancel: () => void
}

/**
 * Waits for one connection: on this host at a socket of this name that only its user can open, else on the machine's
 * loopback, which other users of it can reach, too.
 */
export async function listenOnce(
  { machine, socketDir, shared }: Way['from'],
  name: string,
  signal: AbortSignal,
): Promise<Listening> {
  if (machine instanceof SshMachine) {
    const ours = async (port: number) => {
      const argv = ['sh', '-c', ownerScript, 'sh', String(port)]
      return !shared || (await run(machine, argv, { timeoutMs: 30_000, allowFailure: true })).exit.code === 0
    }
    const { port, connection, cancel } = await machine.listenOnce(signal, ours)
    return { address: { type: 'inet', host: '127.0.0.1', port: String(port) }, connection, cancel }
  }
  const path = `${socketDir}/${name}`
  // Of a move that was broken off.
  await rm(path, { force: true })
  const server = createServer()
  const connection = new Promise<Duplex>((resolve) => server.once('connection', resolve))
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve))
  return { address: { type: 'unix', path }, connection, cancel: () => server.close() }
}

/** Succeeds where the socket with this local port is of the user who asks (proc_pid_net(5): /proc/net/tcp). */
const ownerScript = `cat /proc/net/tcp /proc/net/tcp6 2> /dev/null |
awk -v port="$(printf ':%04X$' "$1")" -v user="$(id -u)" '$2 ~ port && $8 == user { ours = 1 } END { exit !ours }'`
