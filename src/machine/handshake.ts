import type { Duplex } from 'node:stream'
import type { AnyAuthMethod, BaseAgent, Client, ConnectConfig } from 'ssh2'
import { NestvmError } from '../store/error.ts'

/** An ssh server, and how to log in to it. */
export interface SshTarget {
  /** The machine's path from here, for messages. */
  name: string
  user: string
  /** Opens the byte stream that the ssh protocol runs on. */
  transport(signal: AbortSignal): Promise<Duplex>
  /** Why a host key, in the form of RFC 4253, section 6.6, is not trusted; undefined where it is. */
  distrust(hostKey: Buffer): NestvmError | undefined
  /** Tried one after the other. */
  logins: readonly Login[]
  /** What to do when none of them is accepted. */
  loginHint?: string
  /** Those for guests unless said. */
  algorithms?: ConnectConfig['algorithms']
}

/** A private key in OpenSSH's format, or an agent. */
export type Login = { key: string | Buffer } | { agent: BaseAgent }

/**
 * Curve25519 alone and no slower second choice: dropbear and OpenSSH have had it since 2013.
 * The ciphers are in the order of their speed in an emulated guest.
 */
const guestAlgorithms = {
  kex: ['curve25519-sha256', 'curve25519-sha256@libssh.org'],
  cipher: ['chacha20-poly1305@openssh.com', 'aes128-gcm@openssh.com', 'aes128-ctr', 'aes256-ctr'],
  compress: ['none'],
} satisfies ConnectConfig['algorithms']

/** Throws `CONNECT_FAILED`, `LOGIN_FAILED`, or what the target says about the host key. */
export function handshake(client: Client, sock: Duplex, target: SshTarget): Promise<void> {
  let distrust: NestvmError | undefined
  return new Promise((resolve, reject) => {
    const fail = (error: Error & { level?: string }) => reject(distrust ?? explain(error, target))
    client.once('ready', () => {
      client.off('error', fail)
      resolve()
    })
    client.once('error', fail)
    client.once('close', () => fail(new Error('the connection was closed')))
    client.connect({
      sock,
      username: target.user,
      authHandler: target.logins.map((login) => authMethod(login, target.user)),
      algorithms: target.algorithms ?? guestAlgorithms,
      // Limits are the caller's, by its signal.
      readyTimeout: 0,
      // A guest that is gone does not say so: after six unanswered questions it is taken for lost.
      keepaliveInterval: 20_000,
      keepaliveCountMax: 6,
      // dropbear forwards unix sockets too, as OpenSSH's protocol extension says.
      strictVendor: false,
      hostVerifier: (key: Buffer) => {
        distrust = target.distrust(key)
        return distrust === undefined
      },
    })
  })
}

function authMethod(login: Login, username: string): AnyAuthMethod {
  return 'agent' in login
    ? { type: 'agent', username, agent: login.agent }
    : { type: 'publickey', username, key: login.key }
}

function explain(error: Error & { level?: string }, { name, loginHint }: SshTarget): NestvmError {
  if (error.level !== 'client-authentication') {
    return new NestvmError('CONNECT_FAILED', `cannot connect to ${name}: ${error.message}`, { cause: error })
  }
  return new NestvmError('LOGIN_FAILED', `${name} does not let us in: ${error.message}`, {
    hint: loginHint,
    cause: error,
  })
}
