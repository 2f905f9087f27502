import type { Duplex } from 'node:stream'
import type { Client, ClientChannel, ConnectConfig } from 'ssh2'
import ssh2 from 'ssh2'
import { NestvmError } from '../store/error.ts'
import type { Address, Exit, Machine, Process, SpawnOptions } from './machine.ts'
import { commandLine } from './quote.ts'

export interface SshTarget {
  /** The machine's path from here, for messages. */
  name: string
  user: string
  /** Opens the byte stream that the ssh protocol runs on. */
  transport(signal: AbortSignal): Promise<Duplex>
  /** Tells whether this is the host key that is expected; the key is in the form of RFC 4253, section 6.6. */
  trusts(hostKey: Buffer): boolean
  /** How to log in: a private key in OpenSSH's format, or an agent's socket. */
  login: { privateKey: string | Buffer } | { agent: string }
}

/**
 * A machine reached over ssh: a host, or a guest. One connection carries all its programs and connects,
 * and is encrypted once from here to there, however many machines lie between.
 */
export class SshMachine implements Machine {
  readonly name: string
  private readonly client: Client
  /** Settles when the connection has ended, with the reason where there was one. */
  readonly lost: Promise<Error | undefined>

  private constructor(name: string, client: Client) {
    this.name = name
    this.client = client
    let reason: Error | undefined
    this.lost = new Promise((resolve) => client.once('close', () => resolve(reason)))
    client.on('error', (error) => {
      reason = error
    })
  }

  /** Throws `CONNECT_FAILED`, `LOGIN_FAILED`, `HOST_KEY_MISMATCH`, or the signal's reason. */
  static async connect(target: SshTarget, signal: AbortSignal): Promise<SshMachine> {
    const sock = await target.transport(signal)
    const client = new ssh2.Client()
    const machine = new SshMachine(target.name, client)
    const abort = () => client.destroy()
    signal.addEventListener('abort', abort, { once: true })
    try {
      await handshake(client, sock, target)
      return machine
    } catch (error) {
      client.destroy()
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
    const channel = await this.open<ClientChannel>((done) =>
      pty ? this.client.exec(line, { pty }, done) : this.client.exec(line, done),
    )
    return this.asProcess(channel, options.signal)
  }

  async connect(address: Address, signal?: AbortSignal): Promise<Duplex> {
    signal?.throwIfAborted()
    return this.open<ClientChannel>((done) =>
      'unix' in address
        ? this.client.openssh_forwardOutStreamLocal(address.unix, done)
        : this.client.forwardOut('127.0.0.1', 0, address.host, address.port, done),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.end()
    // What does not answer a polite end is cut off.
    const timer = setTimeout(() => this.client.destroy(), 1000)
    await this.lost
    clearTimeout(timer)
  }

  private async open<T>(request: (done: (error: Error | undefined, value: T) => void) => void): Promise<T> {
    const opened = new Promise<T>((resolve, reject) => {
      try {
        request((error, value) => (error ? reject(error) : resolve(value)))
      } catch (error) {
        reject(error)
      }
    })
    const lost = this.lost.then((reason) => Promise.reject(reason ?? new Error('the connection was closed')))
    try {
      return await Promise.race([opened, lost])
    } catch (error) {
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

/**
 * Curve25519 alone and no slower second choice: dropbear and OpenSSH have had it since 2013.
 * The ciphers are in the order of their speed in an emulated guest.
 */
const algorithms = {
  kex: ['curve25519-sha256', 'curve25519-sha256@libssh.org'],
  cipher: ['chacha20-poly1305@openssh.com', 'aes128-gcm@openssh.com', 'aes128-ctr', 'aes256-ctr'],
  compress: ['none'],
} satisfies ConnectConfig['algorithms']

function handshake(client: Client, sock: Duplex, target: SshTarget): Promise<void> {
  let distrusted = false
  return new Promise((resolve, reject) => {
    const fail = (error: Error & { level?: string }) => {
      const code = distrusted
        ? 'HOST_KEY_MISMATCH'
        : error.level === 'client-authentication'
          ? 'LOGIN_FAILED'
          : 'CONNECT_FAILED'
      const message = distrusted ? 'it shows another host key than the one expected' : error.message
      reject(new NestvmError(code, `cannot connect to ${target.name}: ${message}`, { cause: error }))
    }
    client.once('ready', () => {
      client.off('error', fail)
      resolve()
    })
    client.once('error', fail)
    client.once('close', () => fail(new Error('the connection was closed')))
    client.connect({
      sock,
      username: target.user,
      ...target.login,
      algorithms,
      // Limits are the caller's, by its signal.
      readyTimeout: 0,
      // A guest that is gone does not say so: after six unanswered questions it is taken for lost.
      keepaliveInterval: 20_000,
      keepaliveCountMax: 6,
      // dropbear forwards unix sockets too, as OpenSSH's protocol extension says.
      strictVendor: false,
      hostVerifier: (key: Buffer) => {
        distrusted = !target.trusts(key)
        return !distrusted
      },
    })
  })
}

function signalName(name: string | undefined): NodeJS.Signals {
  return `SIG${(name ?? 'KILL').replace(/^SIG/, '')}` as NodeJS.Signals
}
