import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import type { Bundle } from '../bundle/bundle.ts'
import { timeLimit } from '../machine/limit.ts'
import type { PublishedPort } from '../network/ports.ts'
import type { Context } from '../stack/context.ts'
import { NestvmError } from '../store/error.ts'
import { type ChainLevel, type LevelsResult, measureLevels, startChain } from './chain.ts'
import { compareLevels, type Measurement } from './levels-report.ts'
import { type Amounts, measureService, parsePing, programOf, type Service } from './services.ts'

interface BenchOptions {
  depth: number
  /** What is sent to measure throughput. */
  megabytes: number
}

/**
 * Measures throughput and round trips at each level of one chain of guests: over published ports, outwards, and between
 * each guest and the one around it. `print` gets lines for people on the way.
 */
export async function benchNetwork(
  context: Context,
  bundle: Bundle,
  { depth, megabytes }: BenchOptions,
  print: (line: string) => void,
): Promise<LevelsResult> {
  const amounts = { megabytes, roundTrips: 50 }
  const given = async () => ({ network: 'user' as const, ports: await Promise.all(services.map(publish)) })
  await using chain = await startChain(context, bundle, depth, given, print)
  await using outside = await Outside.open()
  const measure = async (level: ChainLevel): Promise<Values> => {
    const around = chain.levels[level.level - 2]
    await level.shell.run(services.map((service) => listen(service, amounts)).join('\n'))
    return {
      ...(await overPorts(level, amounts, context.signal)),
      ...(await outwards(level, outside, amounts, context.signal)),
      ...(around && (await between(level, around, amounts))),
    }
  }
  const { cpu, measured } = await measureLevels(chain, measure, print)
  return { ...chain.host, works: compareLevels(cpu, measurements(measured)) }
}

const services: readonly Service[] = ['take', 'give', 'echo']
const portOf: Record<Service, number> = { take: 5001, give: 5002, echo: 5003 }

/** What was measured at a level, by what it is. */
type Values = Record<string, number>

const titles: Record<Service, string> = { take: 'to the guest', give: 'from the guest', echo: 'round trip' }

async function overPorts({ guest, shell }: ChainLevel, amounts: Amounts, signal: AbortSignal): Promise<Values> {
  const values: Values = {}
  await shell.run(listening)
  for (const [index, service] of services.entries()) {
    const { hostPort = 0, hostAddress } = guest.record.ports[index] ?? {}
    const socket = connect(hostPort, hostAddress)
    values[`published port, ${titles[service]}`] = await measureService(service, socket, amounts, signal)
  }
  return values
}

async function outwards({ guest, shell }: ChainLevel, outside: Outside, amounts: Amounts, signal: AbortSignal) {
  const values: Values = {}
  if (!outside.address || guest.record.network === 'none') return values
  for (const service of services) {
    const accepted = outside.accept(signal)
    await shell.run(background(`nc ${outside.address} ${outside.port} -e ${programOf(service, amounts)}`))
    values[`outside, ${titles[service]}`] = await measureService(service, await accepted, amounts, signal)
  }
  return values
}

/** With the guest around it. */
async function between(inner: ChainLevel, outer: ChainLevel, amounts: Amounts): Promise<Values> {
  const from = async (source: ChainLevel, to: ChainLevel) => {
    const fetch = `nc ${source.guest.record.address} ${portOf.give} -e dd of=/dev/null bs=64k 2>/dev/null </dev/null`
    return (1000 * amounts.megabytes) / (await to.shell.time(fetch))
  }
  const ping = await inner.shell.run(`ping -A -q -c ${amounts.roundTrips} ${outer.guest.record.address}`)
  return {
    'guest around it, to the guest': await from(outer, inner),
    'guest around it, from the guest': await from(inner, outer),
    'guest around it, ping': parsePing(ping) ?? Number.NaN,
  }
}

function measurements(levels: readonly Values[]): Measurement[] {
  const names = [...new Set(levels.flatMap((values) => Object.keys(values)))]
  return names.map((what) => ({
    what,
    unit: /round trip|ping/.test(what) ? 'ms' : 'MB/s',
    values: levels.map((values) => values[what]),
  }))
}

function listen(service: Service, amounts: Amounts): string {
  return background(`nc -ll -p ${portOf[service]} -e ${programOf(service, amounts)}`)
}

const background = (command: string) => `${command} </dev/null >/dev/null 2>&1 &`

/** The ports in hexadecimal, as the kernel lists them. */
const listening = Object.values(portOf)
  .map(
    (port) =>
      `until grep -q :${port.toString(16).toUpperCase().padStart(4, '0')} /proc/net/tcp*; do usleep 10000; done`,
  )
  .join('\n')

async function publish(service: Service): Promise<PublishedPort> {
  const server = createServer().listen(0, '127.0.0.1')
  const hostPort = await portAt(server)
  server.close()
  return { protocol: 'tcp', hostAddress: '127.0.0.1', hostPort, guestPort: portOf[service] }
}

async function portAt(server: Server): Promise<number> {
  await once(server, 'listening')
  const address = server.address()
  return address !== null && typeof address === 'object' ? address.port : 0
}

/** A server on an address of this host that guests reach: none on its loopback, and some hosts have no other. */
class Outside implements AsyncDisposable {
  private constructor(
    readonly address: string | undefined,
    readonly port: number,
    private readonly server: Server,
  ) {}

  static async open(): Promise<Outside> {
    const addresses = Object.values(networkInterfaces()).flatMap((each) => each ?? [])
    const address = addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address
    const server = createServer().listen(0, address ?? '127.0.0.1')
    return new Outside(address, await portAt(server), server)
  }

  /** The next connection. Throws `BENCH_FAILED` when none comes. */
  async accept(signal: AbortSignal): Promise<Socket> {
    const limit = timeLimit(60_000)
    try {
      const [socket]: Socket[] = await once(this.server, 'connection', { signal: AbortSignal.any([signal, limit]) })
      if (socket) return socket
    } catch {
      signal.throwIfAborted()
    }
    throw new NestvmError('BENCH_FAILED', 'a guest did not connect to this host')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.close()
  }
}
