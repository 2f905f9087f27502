import { Command } from 'commander'
import { session } from './session.ts'

/** Ctrl-], as in telnet and virsh. */
const leave = 0x1d

export function consoleCommand(): Command {
  return new Command('console')
    .description("Connect to a machine's console, which works without its network. Ctrl-] leaves it.")
    .argument('<machine>', 'its path, for example outer/inner')
    .action((path: string) =>
      session(false, async ({ context }) => {
        const { runningRecord } = await import('../stack/record.ts')
        const { openConsole } = await import('../stack/output.ts')
        const stream = await openConsole(context, await runningRecord(path))
        const { stdin, stdout, stderr } = process
        stderr.write(`connected to ${path}; Ctrl-] leaves, Enter starts a shell\n`)
        if (stdin.isTTY) stdin.setRawMode(true)
        stdin.on('data', (data: Buffer) => {
          if (data.includes(leave)) stream.destroy()
          else stream.write(data)
        })
        stdin.once('end', () => stream.end())
        stream.on('data', (data: Buffer) => stdout.write(data))
        context.signal.addEventListener('abort', () => stream.destroy())
        await new Promise<void>((resolve) => stream.once('close', () => resolve()))
        if (stdin.isTTY) stdin.setRawMode(false)
        stdin.pause()
        return 0
      }),
    )
}
