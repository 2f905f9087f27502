import { Command } from 'commander'

/** Serves a guest's volumes. `run` starts it as a process of its own; it ends with the guest. */
export function volumeServerCommand(): Command {
  return new Command('volume-server').argument('<file>', 'what to serve, as JSON').action(async (file: string) => {
    const { runVolumeServer } = await import('../volume/program.ts')
    const stop = new AbortController()
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => stop.abort())
    await runVolumeServer(file, stop.signal)
    process.exit(0)
  })
}
