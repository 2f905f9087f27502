import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { LocalMachine } from '../machine/local.ts'
import type { SshMachine } from '../machine/ssh.ts'
import { connectHost } from '../machine/ssh-host.ts'

/** Opens one connection to where a guest comes in. */
export type Dial = (signal: AbortSignal) => Promise<Duplex>

/**
 * To a unix socket of this host, or of one by its `ssh://` address, through whose ssh server the bytes then go. The ssh
 * connection is made anew when it was lost; until then a guest waits, as for a disk that does not answer.
 */
export function dialSocket({ unix, host }: { unix: string; host?: string | undefined }): Dial {
  const local = new LocalMachine()
  if (host === undefined) return (signal) => local.connect({ unix }, signal)
  let machine: SshMachine | undefined
  return async (signal) => {
    machine ??= await connectHost(local, host, signal).catch(async (error: unknown) => {
      // A server that is away or does not let us in is not to be pestered.
      await sleep(retryMs, undefined, { signal }).catch(() => {})
      throw error
    })
    const connected = machine
    const close = () => void connected[Symbol.asyncDispose]()
    signal.addEventListener('abort', close, { once: true })
    connected.lost.then(() => {
      signal.removeEventListener('abort', close)
      if (machine === connected) machine = undefined
    })
    return connected.connect({ unix }, signal)
  }
}

const retryMs = 5000
