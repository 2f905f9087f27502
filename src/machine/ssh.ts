import { constants } from 'node:os'
import type { Duplex } from 'node:stream'
import type { Client, ClientChannel } from 'ssh2'
import ssh2 from 'ssh2'
import { NestvmError } from '../store/error.ts'
import { handshake, type SshTarget } from './handshake.ts'
import { unlessAborted } from './limit.ts'
import type { Address, Exit, Machine, Process, SpawnOptions } from './machine.ts'
import { commandLine } from './quote.ts'

/**
 * A machine reached over ssh: a host, or a guest. One connection carries all its programs and connects,
 * and is encrypted once from here to there, however many machines lie between.
 */
export class SshMachine implements Machine {
  readonly name: string
  private readonly client: Client
  private readonly sock: Duplex
  /** Settles when the connection has ended, with the reason where there was one. */
  readonly lost: Promise<Error | undefined>

  private constructor(name: string, client: Client, sock: Duplex) {
    this.name = name
    this.client = client
    this.sock = sock
    let reason: Error | undefined
    this.lost = new Promise((resolve) => client.once('close', () => resolve(reason)))
    client.on('error', (error) => {
      reason = error
    })
  }

  /** Throws `CONNECT_FAILED`, `LOGIN_FAILED`, what the target says about the host key, or the signal's reason. */
  static async connect(target: SshTarget, signal: AbortSignal): Promise<SshMachine> {
    const sock = await target.transport(signal)
    const client = new ssh2.Client()
    const machine = new SshMachine(target.name, client, sock)
    const abort = () => sock.destroy()
    signal.addEventListener('abort', abort, { once: true })
    try {
      signal.throwIfAborted()
      await handshake(client, sock, target)
      return machine
    } catch (error) {
      sock.destroy()
      signal.throwIfAborted()
      throw error
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }

  async spawn(argv: readonly string[], options: SpawnOptions = {}): Promise<Process> {
    options.signal?.throwIfAborted()
    const line = commandLine(argv, options)
    const { tty } = options
    const pty = tty ? { rows: tty.rows, cols: tty.cols, term: tty.term ?? 'xterm', width: 0, height: 0 } : undefined
    const program = await this.open(
      (done) => (pty ? this.client.exec(line, { pty }, done) : this.client.exec(line, done)),
      (channel) => this.asProcess(channel, options.signal),
      options.signal,
    )
    return options.detach ? { ...program, pid: await readPid(program) } : program
  }

  async connect(address: Address, signal?: AbortSignal): Promise<Duplex> {
    signal?.throwIfAborted()
    return this.open(
      (done) =>
        'unix' in address
          ? this.client.openssh_forwardOutStreamLocal(address.unix, done)
          : this.client.forwardOut('127.0.0.1', 0, address.host, address.port, done),
      (channel) => channel,
      signal,
    )
  }

  /**
   * Waits on a free port of the machine's own loopback for one connection from there, from a port that may come;
   * `cancel` gives the port back. Throws `CONNECT_FAILED` where its ssh server does not forward.
   */
  async listenOnce(
    signal?: AbortSignal,
    mayCome: (port: number) => Promise<boolean> = async () => true,
  ): Promise<{ port: number; connection: Promise<Duplex>; cancel: () => void }> {
    const listening = new Promise<number>((resolve, reject) => {
      this.client.forwardIn(loopback, 0, (error, port) => (error ? reject(error) : resolve(port)))
    })
    const port = await this.answered(listening, signal)
    const connection = new Promise<Duplex>((resolve) => {
      this.client.on('tcp connection', ({ destPort, srcPort }, accept, reject) => {
        if (destPort !== port) return
        mayCome(srcPort).then((may) => (may ? resolve(accept()) : reject()), reject)
      })
    })
    const cancel = () => {
      try {
        this.client.unforwardIn(loopback, port, () => {})
      } catch {
        // The port went with the connection.
      }
    }
    return { port, connection, cancel }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.end()
    // What does not answer a polite end is cut off, which the client itself does not do to what it has ended.
    const timer = setTimeout(() => this.sock.destroy(), 1000)
    await this.lost
    clearTimeout(timer)
  }

  /** `use` is called at once when the channel is open: its end may come in the same packet. */
  private async open<T>(
    request: (done: Opened) => void,
    use: (channel: ClientChannel) => T,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    let late = false
    const opened = new Promise<T>((resolve, reject) => {
      try {
        request((error, channel) => {
          if (error) reject(error)
          else if (late) channel.on('error', () => {}).close()
          else resolve(use(channel))
        })
      } catch (error) {
        reject(error)
      }
    })
    try {
      return await this.answered(opened, signal)
    } catch (error) {
      late = true
      throw error
    }
  }

  /** What the far end answers, unless the connection is lost or the signal aborted before. Throws `CONNECT_FAILED`. */
  private async answered<T>(answer: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const lost = this.lost.then((reason) => Promise.reject(reason ?? new Error('the connection was closed')))
    try {
      return await unlessAborted(Promise.race([answer, lost]), signal)
    } catch (error) {
      signal?.throwIfAborted()
      throw new NestvmError('CONNECT_FAILED', `${this.name}: ${error instanceof Error ? error.message : error}`, {
        cause: error,
      })
    }
  }

  private asProcess(channel: ClientChannel, signal: AbortSignal | undefined): Process {
    let exit: Exit | undefined
    channel.once('exit', (code: number | null, name?: string) => {
      exit = { code, signal: code === null ? signalName(name) : null }
    })
    // A program that ends without reading its input is no error: its exit status tells.
    channel.on('error', () => {})
    // ssh2 sends no signal once the input has ended; closing the channel is what is left then.
    const kill = (name: NodeJS.Signals = 'SIGTERM') =>
      channel.writableEnded ? channel.close() : channel.signal(name.replace(/^SIG/, ''))
    const abort = () => {
      kill('SIGKILL')
      channel.close()
    }
    signal?.addEventListener('abort', abort, { once: true })
    if (signal?.aborted) abort()
    const exited = new Promise<Exit>((resolve, reject) => {
      channel.once('close', () => {
        signal?.removeEventListener('abort', abort)
        if (exit) resolve(exit)
        else reject(new NestvmError('MACHINE_LOST', `the connection to ${this.name} was lost`))
      })
    })
    // Whoever does not wait for the end must not be ended by it.
    exited.catch(() => {})
    return {
      pid: undefined,
      stdin: channel.stdin,
      stdout: channel.stdout,
      stderr: channel.stderr,
      exited,
      kill,
      resize: ({ rows, cols }) => channel.setWindow(rows, cols, 0, 0),
    }
  }
}

const loopback = '127.0.0.1'

/** The first line of what a detached program's shell says. */
async function readPid({ stdout, exited }: Process): Promise<number | undefined> {
  const line = new Promise<number>((resolve) => {
    let text = ''
    stdout.on('data', (chunk: Buffer) => {
      text += chunk
      if (text.includes('\n')) resolve(Number.parseInt(text, 10))
    })
  })
  return Promise.race([line, exited.then(() => undefined)])
}

type Opened = (error: Error | undefined, channel: ClientChannel) => void

/** Without its name, or with one that this system lacks, it counts as the hardest. */
function signalName(name = 'KILL'): NodeJS.Signals {
  const full = `SIG${name.replace(/^SIG/, '')}`
  return isSignal(full) ? full : 'SIGKILL'
}

function isSignal(name: string): name is NodeJS.Signals {
  return name in constants.signals
}
