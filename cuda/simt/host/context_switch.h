// From one stack to another.
#pragma once

/// Saves the running context, its stack pointer in *from, and goes on where `to` left off.
extern "C" void simt_switch(void** from, void* to);

/// A context that starts with function(argument) on the stack below `top`; the function never returns.
void* simt_make_context(char* top, void (*function)(void*), void* argument);
