/* The guest of the peer's blackouts: a multiboot kernel that stores into pages of its memory at a steady rate, as the
 * simulated guest does, and says so a thousand times a second on port 0xe9.
 *
 * Assembled with PAGES (of the working set) and PACE (stores per tick of the PM timer, times 2^32). It first stores into
 * each page once, says 'F', and then stores into random ones. Time is the PM timer's, which stands while the guest does;
 * what it could not store for more than 100 ms is not caught up. */
    .set FIRST, 0x1000000          /* byte address of the working set */
    .set PM_TIMER, 0x608           /* 3579545 Hz, 24 bits; where SeaBIOS puts it */
    .set LONGEST, 357954           /* ticks of it */
    .set SAYS, 0xe9

    .text
    .code32
    .balign 4
    .long 0x1badb002, 0, -0x1badb002
    .globl _start
_start:
    cli
    cld
    mov $stack_end, %esp
    lgdt gdt_at
    ljmp $8, $1f
1:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss

    mov $idt, %edi                 /* every interrupt is the timer's, or nothing */
    mov $256, %ecx
1:  mov $on_interrupt, %eax
    mov %ax, (%edi)
    movw $8, 2(%edi)
    movw $0x8e00, 4(%edi)
    shr $16, %eax
    mov %ax, 6(%edi)
    add $8, %edi
    loop 1b
    lidt idt_at

    mov $0x11, %al                 /* interrupt controllers: from vector 32 on, only the timer */
    out %al, $0x20
    out %al, $0xa0
    mov $0x20, %al
    out %al, $0x21
    mov $0x28, %al
    out %al, $0xa1
    mov $4, %al
    out %al, $0x21
    mov $2, %al
    out %al, $0xa1
    mov $1, %al
    out %al, $0x21
    out %al, $0xa1
    mov $0xfe, %al
    out %al, $0x21
    mov $0xff, %al
    out %al, $0xa1
    mov $0x34, %al                 /* the timer: 1193182 / 1193 Hz */
    out %al, $0x43
    mov $(1193 & 255), %al
    out %al, $0x40
    mov $(1193 >> 8), %al
    out %al, $0x40

    mov $FIRST, %edi
    mov $PAGES, %ecx
1:  mov %edi, (%edi)
    add $4096, %edi
    loop 1b
    mov $'F', %al
    out %al, $SAYS

    mov $PM_TIMER, %dx
    in %dx, %eax
    mov %eax, last
    mov $0x9e3779b9, %ebx          /* the random numbers' state */
    sti
again:
    hlt
    mov $'.', %al
    out %al, $SAYS
    mov $PM_TIMER, %dx
    in %dx, %eax
    mov %eax, %ecx
    sub last, %eax
    mov %ecx, last
    and $0xffffff, %eax
    cmp $LONGEST, %eax
    jbe 1f
    mov $LONGEST, %eax
1:  mov $PACE, %edx
    mul %edx
    add %eax, part
    adc $0, %edx
    mov %edx, %ecx
    jecxz again
2:  mov %ebx, %eax
    shl $13, %eax
    xor %eax, %ebx
    mov %ebx, %eax
    shr $17, %eax
    xor %eax, %ebx
    mov %ebx, %eax
    shl $5, %eax
    xor %eax, %ebx
    mov %ebx, %eax
    mov $PAGES, %edx
    mul %edx
    shl $12, %edx
    mov %ebx, FIRST(%edx)
    loop 2b
    jmp again

on_interrupt:
    push %eax
    mov $0x20, %al
    out %al, $0x20
    pop %eax
    iret

    .data
    .balign 8
gdt:
    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_at:
    .word . - gdt - 1
    .long gdt
idt_at:
    .word 256 * 8 - 1
    .long idt
last:
    .long 0
part:
    .long 0

    .bss
    .balign 8
idt:
    .skip 256 * 8
    .skip 4096
stack_end:
